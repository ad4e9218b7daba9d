"""What a system that starts empty needs before its first run: buckets, and a source table with the shipped rows."""

import logging
from collections.abc import Sequence
from pathlib import Path

from churn.adapters import object_storage, sources
from churn.adapters.rows import typed as as_typed
from churn.adapters.sources import databases
from churn.errors import ContractError
from churn.settings import Settings, without_password

log = logging.getLogger(__name__)


def run(settings: Settings, rows: Path, *, buckets: Sequence[str]) -> None:
    """Make the buckets that are not there, and fill the source's table from the file or folder `rows` unless it is there.

    Raises:
        SourceError: the rows cannot be read, or object storage or the database refuses.
        ContractError: a value cannot be read as its kind.
    """
    for bucket in buckets:
        made = object_storage.make_bucket(bucket)
        log.info("bucket %s %s", bucket, "made" if made else "is there")
    if settings.source:
        source = f"{without_password(settings.source)}: table {settings.source_table}"
        if databases.has_table(settings.source, settings.source_table):
            log.info("%s is there", source)
        else:
            typed, unreadable = as_typed(sources.read(str(rows)))
            if unreadable:
                raise ContractError(f"{rows}: {', '.join(unreadable)}: values that are not readable; correct them")
            databases.write(typed, settings.source, settings.source_table)
            log.info("%s: %d rows", source, len(typed))
