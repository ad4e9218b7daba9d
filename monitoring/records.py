"""What the watcher saw and decided: append-only records, each a small JSON file on a local folder or S3.

A record appears whole or not at all, exactly one of a name, and never changes. Names begin with a UTC time as
`20261123T030000Z`, so that their order is the order in time.
"""

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from churn.errors import MonitorError
from monitoring.record_storage import NAME, BucketStorage, FolderStorage, NotARecordError, Storage, s3_client
from monitoring.record_types import problem

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 8
"""Small objects are read that many at once: it is the way there that takes time."""


@dataclass(frozen=True)
class Records(Generic[T]):
    """Records by name; safe to use from several processes. Every method raises MonitorError where they are out of reach.

    A record that is damaged, or is of the future, is set aside and logged: it is moved to `quarantine/`, or skipped where that is
    not possible.
    """

    storage: Storage
    kind: TypeAdapter[T]
    skipped: dict[str, str] = field(default_factory=dict, compare=False)
    """Place → reason of those that could not be moved."""

    def add(self, name: str, content: Mapping[str, Any]) -> bool:
        """Create the record; False if one of that name is there already, whose content stays.

        Where this returns True, the record outlives a loss of power.

        Raises:
            ValueError: the name has other characters than letters, digits, `.`, `_` and `-`, or the content is not JSON.
        """
        _checked(name)
        return self.storage.create(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def since(self, prefix: str, now: datetime | None = None) -> list[T]:
        """The records whose name is `prefix` or sorts after it, in the order of names.

        `now` (UTC) is the clock's unless given.
        """
        with ThreadPoolExecutor(READERS) as readers:
            found = readers.map(lambda name: self.get(name, now), self.storage.names(prefix))
            return [record for record in found if record is not None]

    def get(self, name: str, now: datetime | None = None) -> T | None:
        """One record; None if there is none of that name that can be used.

        Raises:
            ValueError: as `add`.
        """
        _checked(name)
        context = {"name": name, "now": now or datetime.now(UTC)}
        try:
            content = self.storage.read(name)
            return None if content is None else self.kind.validate_json(content, context=context)
        except ValidationError as error:
            self._set_aside(name, problem(error))
        except NotARecordError as error:
            self._set_aside(name, str(error))
        return None

    def set_aside(self) -> int:
        """How many are not used: those in `quarantine/` until a person removes them, and those that could not be moved."""
        return self.storage.quarantined() + len(self.skipped)

    def _set_aside(self, name: str, reason: str) -> None:
        place = self.storage.place(name)
        try:
            moved_to = self.storage.move_away(name)
        except MonitorError as error:
            if place not in self.skipped:
                log.warning("%s: not a record of the watcher, skipped: %s; it cannot be moved away (%s)", place, reason, error)
            self.skipped[place] = reason
        else:
            log.warning("%s: not a record of the watcher: %s; it is now %s", place, reason, moved_to)


def open_records(location: str, kind: TypeAdapter[T]) -> Records[T]:
    """The records at a folder, which need not exist yet, or at `s3://bucket/prefix`. Nothing is connected to yet.

    S3 is reached as `churn.adapters.object_storage` does, and must honour `If-None-Match: *`, as AWS, MinIO, Ceph and R2 do.

    Raises:
        MonitorError: it is neither, or the environment names an endpoint that is no address.
    """
    if location.startswith("s3://"):
        bucket, _, prefix = location.removeprefix("s3://").strip("/").partition("/")
        return Records(BucketStorage(bucket, f"{prefix}/" if prefix else "", s3_client()), kind)
    if not location or "://" in location:
        raise MonitorError(f"environment: CHURN_MONITOR = {location!r} is neither a folder nor s3://bucket/prefix; correct it")
    return Records(FolderStorage(Path(location)), kind)


def _checked(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"record {name!r}: letters, digits, '.', '_' and '-' make a name, a letter or digit first; rename it")
