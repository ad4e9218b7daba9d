"""Merges the parts of past days into one part for each day, kind and schema.

A compacted part is written under a name of its own and names the parts that it replaces; from then on readers skip those. They
are deleted by a later run, `GRACE` after: until then, a reader that listed the folder before finds what it listed. A process that
is killed between any two steps leaves a log in which every row is read once.
"""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from churn.adapters.events.listing import REPLACES, Listing, packed_names, replaced_names
from churn.adapters.events.log import KINDS, Kind, Sink, part_kind
from churn.adapters.events.parts import (
    COMPACTED,
    SUFFIX,
    ChangedError,
    Damaged,
    DamagedPartError,
    Part,
    PartFile,
    PartKind,
    opened,
)
from churn.adapters.events.row_groups import check_columns, groups, read_group
from churn.errors import EventsError

log = logging.getLogger(__name__)

GRACE = timedelta(hours=1)
"""How long replaced parts are kept, longer than any reader takes between the listing of a day and its last part."""
ROW_GROUP = 16_384
"""Rows that are read at once: windows and samples read some row groups of a day, not all."""
BUFFERED = 4 * ROW_GROUP
"""Rows that are sorted by time before they are written; parts come in about that order already."""
DELETERS = 16


@dataclass
class Result:
    """What a run did: days with a new compacted part, parts that were merged into those, parts that were deleted.

    `is_complete`: nothing is left to do but to delete what was replaced less than `GRACE` ago.
    """

    days: int = 0
    merged: int = 0
    deleted: int = 0
    is_complete: bool = True

    def __str__(self) -> str:
        """In one line."""
        return f"{self.days} days compacted, {self.merged} parts merged, {self.deleted} replaced parts deleted"


def compact(
    sink: Sink, *, now: datetime, after: timedelta, grace: timedelta = GRACE, is_stopped: Callable[[], bool] = lambda: False
) -> Result:
    """Compact every day that ended at least `after` before `now`, the newest first, until `is_stopped` says so.

    Doing it again does nothing. Several at the same time are harmless. Damaged parts stay where they are.

    Raises:
        EventsError: the storage is out of reach; what is compacted so far stays.
    """
    result = Result()
    last = (now - after).astimezone(UTC).date()
    for kind in KINDS:
        for day in reversed(sink.reader.days(kind)):
            if day >= last:
                continue
            if is_stopped():
                result.is_complete = False
                return result
            with sink.reader.one_line(f"{kind}/date={day}"):
                _Day(sink, kind, day, now, grace, is_stopped).compact(result)
    return result


@dataclass
class _Merged:
    """A part that is being written: the rows of parts of one schema."""

    path: Path
    schema: pa.Schema
    kind: PartKind
    names: set[str] = field(default_factory=set)
    parts: int = 0
    rows: int = 0
    _tables: list[pa.Table] = field(default_factory=list)
    _writer: Any = None

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        self.rows += len(table)
        if sum(map(len, self._tables)) >= BUFFERED:
            self._flush()

    def close(self) -> None:
        """Write what is buffered, and the names of the parts."""
        self._flush()
        self._writer.add_key_value_metadata({REPLACES.decode(): packed_names(self.names)})
        self._writer.close()

    def _flush(self) -> None:
        from pyarrow.parquet import ParquetWriter

        if self._writer is None:
            texts = [column.name for column in self.schema if pa.types.is_string(column.type)]
            self._writer = ParquetWriter(
                self.path,
                self.schema,
                compression="zstd",
                use_dictionary=[name for name in texts if not name.endswith("_id")],
                write_statistics=[self.kind.time, *(name for name in texts if not name.endswith("_id"))],
            )
        if self._tables:
            table = pa.concat_tables(self._tables).sort_by(self.kind.time)
            self._writer.write_table(table, row_group_size=ROW_GROUP)
            self._tables = []


@dataclass
class _Day:
    """The parts of one kind and day."""

    sink: Sink
    name: Kind
    day: date
    now: datetime
    grace: timedelta
    is_stopped: Callable[[], bool]
    began: float = field(default_factory=time.monotonic)
    published: set[str] = field(default_factory=set)

    @property
    def kind(self) -> PartKind:
        return part_kind(self.name)

    def compact(self, result: Result) -> None:
        """Delete what was replaced long enough ago, and merge what is not merged yet."""
        listing = self.sink.reader.listing(self.name, self.day)
        for damaged in listing.damaged:
            self.sink.on_damaged(damaged)
        result.deleted += self._delete_replaced(listing)
        self._delete_unfinished()
        if len(listing.live) < 2:
            return
        try:
            with TemporaryDirectory() as folder:
                for merged in self._merged(listing, Path(folder)):
                    self._publish(merged, listing)
                    log.info("%s/%s/date=%s: %d parts compacted", self.sink.location, self.name, self.day, merged.parts)
                    result.days += 1
                    result.merged += merged.parts
        except (ChangedError, _StoppedError):
            # Another compaction was faster, or the process is to end: the next run goes on.
            result.is_complete = False

    def _delete_replaced(self, listing: Listing) -> int:
        """Delete parts whose rows have been in a compacted part for long enough; returns how many."""
        compacted = [part.modified for part in listing.live if part.is_compacted]
        if not listing.replaced or any(modified is None or modified > self.now - self.grace for modified in compacted):
            return 0
        with ThreadPoolExecutor(DELETERS) as pool:
            return sum(pool.map(self._delete, listing.replaced))

    def _delete(self, part: Part) -> bool:
        try:
            self.sink.filesystem.delete_file(part.path)
        except FileNotFoundError:
            return False  # by another compaction
        return True

    def _delete_unfinished(self) -> None:
        """Delete what a killed compaction has left in a local folder."""
        folder = Path(self.sink.root) / self.name / f"date={self.day}"
        for file in folder.glob(f".{COMPACTED}*") if isinstance(self.sink.filesystem, LocalFileSystem) else ():
            with suppress(FileNotFoundError):  # another compaction has published or deleted it
                if datetime.fromtimestamp(file.stat().st_mtime, UTC) < self.now - self.grace:
                    file.unlink()

    def _merged(self, listing: Listing, folder: Path) -> list[_Merged]:
        """The new parts, one a schema, where there is more than one part of it."""
        excluded: set[Part] = set()
        while True:
            made: dict[pa.Schema, _Merged] = {}
            for file in opened(self.sink.filesystem, [part for part in listing.live if part not in excluded]):
                if self.is_stopped():
                    raise _StoppedError
                try:
                    self._add(file, made, folder)
                except DamagedPartError as error:
                    self.sink.on_damaged(Damaged(self.sink.reader.shown(file.part.path), str(error)))
                    excluded.add(file.part)
                    if file.part.is_compacted:
                        break  # some of its rows were added already
            else:
                return [merged for merged in made.values() if merged.parts > 1]

    def _add(self, file: PartFile, made: dict[pa.Schema, _Merged], folder: Path) -> None:
        found = groups(file, self.kind)
        check_columns(file, self.kind.schema)
        schema = _plain(file.schema)
        tables: Iterable[pa.Table] = (read_group(group, schema) for group in found)
        if not file.part.is_compacted:
            tables = list(tables)  # all or none
        merged = made.setdefault(schema, _Merged(folder / f"{uuid4().hex}{SUFFIX}", schema, self.kind))
        for table in tables:
            merged.add(table)
        merged.names |= {file.part.name} | (replaced_names(file) if file.part.is_compacted else frozenset())
        merged.parts += 1

    def _publish(self, merged: _Merged, listing: Listing) -> None:
        """Put the part into the log, unless another compaction did so since the listing, or this one took too long."""
        from pyarrow.parquet import read_metadata

        merged.close()
        if read_metadata(merged.path).num_rows != merged.rows:
            raise EventsError(f"{merged.path}: {merged.rows} rows written and another number found; check the disk")
        again = self.sink.reader.listing(self.name, self.day)
        if {part.name for part in again.live if part.is_compacted} - {part.name for part in listing.live} - self.published:
            raise _StoppedError
        if time.monotonic() - self.began > GRACE.total_seconds() / 2:
            # What this one read may be deleted by now, on behalf of a part that it knows nothing of.
            raise _StoppedError
        name = f"{COMPACTED}{sha256(''.join(sorted(merged.names)).encode()).hexdigest()[:16]}"
        try:
            self.sink.publish(self.name, self.day, name, merged.path)
        except FileNotFoundError as error:  # another compaction took the file for one that a killed compaction left
            raise _StoppedError from error
        self.published.add(name)


class _StoppedError(Exception):
    """The process is to end, or it took too long."""


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema without codes for texts, and without metadata."""
    kinds = {column.name: column.type.value_type if pa.types.is_dictionary(column.type) else column.type for column in schema}
    return pa.schema(list(kinds.items()))
