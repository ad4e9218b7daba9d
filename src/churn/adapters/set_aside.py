"""Rows that a stage sets aside instead of refusing all: which, where they are kept, and how the watcher learns of them."""

import json
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from churn.adapters.files import atomic_path
from churn.adapters.object_storage import s3
from churn.adapters.rows import typed
from churn.contract import ENTITY, TIMESTAMP
from churn.domain.reasons import reason
from churn.errors import EventsError, SourceError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

log = logging.getLogger(__name__)

STAGES = ("ingest", "prepare")
LABEL_NOT_KNOWN_YET, UNKNOWN_CUSTOMER, BREAKS_CONTRACT = "label not known yet", "unknown customer", "breaks the contract"
REASONS = (LABEL_NOT_KNOWN_YET, UNKNOWN_CUSTOMER, BREAKS_CONTRACT)

FOLDER = "set-aside"
"""Below the event log: one JSON file per stage, with the counts of its last run."""
SHOWN = 3
"""How many ids a message names."""


def is_immature(table: pa.Table, *, now: datetime, horizon: timedelta) -> "npt.NDArray[np.bool_]":
    """True (n,) for each row whose label cannot be known at `now`: its time lies less than the horizon back, or ahead.

    `table` is as `churn.adapters.sources.read` returns it. A time that cannot be read is not immature: it breaks the contract.
    """
    frame, _ = typed(table.select([name for name in (ENTITY, TIMESTAMP) if name in table.column_names]))
    return (frame[TIMESTAMP] > pd.Timestamp(now - horizon)).to_numpy(dtype=bool)


def shown(horizon: timedelta) -> str:
    """The horizon in days, or in seconds where it is no whole number of days."""
    return f"{horizon.days} days" if horizon == timedelta(days=horizon.days) else f"{horizon.total_seconds():g} s"


def keep(table: pa.Table, mask: "npt.NDArray[np.bool_]", path: Path) -> str:
    """Write the rows under the mask to the CSV file, in place of those of the last run; returns how many, the first ids, where.

    Where there are none, an earlier file is deleted and the text is empty.
    """
    from pyarrow import csv

    if not mask.any():
        path.unlink(missing_ok=True)
        return ""
    rows = table.filter(pa.array(mask))
    with atomic_path(path) as temporary:
        csv.write_csv(rows, temporary)
    first = ", ".join(str(each) for each in rows[ENTITY].slice(0, SHOWN).to_pylist())
    return f"{len(rows)} of {len(table)} rows (first: {first}; all in {path})"


def report(events: str, stage: str, counts: Mapping[str, int]) -> None:
    """Record how many rows the last run of a stage set aside for each reason, for the watcher, at the event log's location.

    Nothing is written where nothing was set aside, now or before. A location that cannot be written to is logged, and no error:
    the rows and their file are there all the same.
    """
    if not events:
        return
    path = f"{FOLDER}/{stage}.json"
    try:
        if any(counts.values()) or _read(events, path) is not None:
            _write(events, path, json.dumps({reason: counts.get(reason, 0) for reason in REASONS}).encode() + b"\n")
    except (OSError, SourceError) as error:
        log.warning("%s/%s: cannot write the count of rows set aside, which the watcher reads: %s", events, path, reason(error))


def reported(events: str) -> dict[tuple[str, str], int]:
    """(stage, reason) → how many rows the stage's last run set aside. A damaged record is logged by its name and left out.

    Raises:
        EventsError: the event log is out of reach.
    """
    found: dict[tuple[str, str], int] = {}
    for stage in STAGES:
        path = f"{FOLDER}/{stage}.json"
        try:
            content = _read(events, path)
        except (OSError, SourceError) as error:
            raise EventsError(f"{events}/{path}: {reason(error)}; check the address and permissions") from error
        found |= {(stage, reason): count for reason, count in _counts(content, f"{events}/{path}").items()}
    return found


def _counts(content: bytes | None, shown: str) -> dict[str, int]:
    if content is None:
        return {}
    try:
        values: Any = json.loads(content)
    except ValueError:
        values = None
    if not isinstance(values, dict) or not all(type(values.get(reason, 0)) is int for reason in REASONS):
        log.warning("%s: not a record of rows that were set aside; delete it", shown)
        return {}
    return {reason: values.get(reason, 0) for reason in REASONS}


def _read(events: str, path: str) -> bytes | None:
    """The file's bytes; None where there is none."""
    try:
        if not events.startswith("s3://"):
            return (Path(events) / path).read_bytes()
        with s3().open_input_stream(f"{events.removeprefix('s3://').rstrip('/')}/{path}") as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


def _write(events: str, path: str, content: bytes) -> None:
    if events.startswith("s3://"):
        with s3().open_output_stream(f"{events.removeprefix('s3://').rstrip('/')}/{path}") as stream:
            stream.write(content)
    else:
        with atomic_path(Path(events) / path) as temporary:
            temporary.write_bytes(content)
