"""Rows of the event log by kind and time, from a local folder or S3."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar

import pyarrow as pa

from churn.adapters.events import sampling
from churn.adapters.events.listing import Listing, listing
from churn.adapters.events.parts import (
    EPOCH,
    MICROSECOND,
    ChangedError,
    Damaged,
    DamagedPartError,
    Part,
    PartKind,
    microseconds,
    opened,
)
from churn.adapters.events.row_groups import read_group, usable_groups
from churn.adapters.events.sampling import Query, Sample
from churn.domain.reasons import reason
from churn.errors import EventsError

log = logging.getLogger(__name__)

Where = Callable[[pa.Table], Any]
T = TypeVar("T")

ATTEMPTS = 3
"""How often a reader begins again when a part disappears under it."""
CHECK = "check the address, the credentials, the permissions and the space"


class DamageLog:
    """Logs every damaged part once."""

    def __init__(self) -> None:
        self._places: set[str] = set()

    def __call__(self, damaged: Damaged) -> None:
        """Log it, unless it was logged before."""
        if damaged.place not in self._places:
            self._places.add(damaged.place)
            log.warning("%s: skipped, its rows are not read: %s; move it away or restore it", damaged.place, damaged.reason)


@dataclass(frozen=True)
class Reader:
    """Reads below `root` of a pyarrow filesystem, shown as `location` in messages.

    A damaged part is left out, and `on_damaged` is called with it, maybe several times. A storage that is out of reach is an
    error, so that an outage does not look like an empty log.
    """

    location: str
    filesystem: Any
    root: str
    on_damaged: Callable[[Damaged], None]

    def read(
        self, kind: PartKind, since: datetime | None, until: datetime | None, columns: Sequence[str], where: Where | None
    ) -> pa.Table:
        """The rows of `stream` as one table.

        Raises:
            EventsError: the storage is out of reach.
        """
        empty = pa.schema([kind.schema.field(name) for name in columns]).empty_table()
        return self._repeated(kind, lambda: pa.concat_tables([empty, *self.stream(kind, since, until, columns, where)]))

    def stream(
        self, kind: PartKind, since: datetime | None, until: datetime | None, columns: Sequence[str], where: Where | None
    ) -> Iterator[pa.Table]:
        """The rows with `since` ≤ time < `until`, a table per row group, in the order of the log.

        `where` gets a table of `columns` and returns which rows to keep, an array of booleans.

        Raises:
            EventsError: the storage is out of reach.
            ChangedError: a part was compacted or deleted meanwhile; what was read so far must be dropped, and read again.
        """
        first = microseconds(since) if since else -(2**63)
        end = microseconds(until) if until else 2**63 - 1
        schema = pa.schema([kind.schema.field(name) for name in dict.fromkeys([*columns, kind.time])])
        with self.one_line(kind.name):
            for file in opened(self.filesystem, self._parts(kind, since, until)):
                for group in usable_groups(file, kind, self._report):
                    if group.last < first or group.first >= end:
                        continue
                    try:
                        table = read_group(group, schema)
                    except DamagedPartError as error:
                        self._report(file.part, str(error))
                        continue
                    if group.first < first or group.last >= end:
                        table = _between(table, kind.time, first, end)
                    table = table.select(list(columns))
                    yield table.filter(where(table)) if where else table

    def sample(self, kind: PartKind, query: Query, *, rows: int, seed: int) -> Sample:
        """At most `rows` of the rows that the query wants, each as likely as any other.

        Raises:
            EventsError: the storage is out of reach.
        """
        source = sampling.Source(self.filesystem, kind, self._report)
        since, until = (EPOCH + moment * MICROSECOND for moment in (query.since, query.until))
        return self._repeated(
            kind, lambda: sampling.sample(source, list(self._parts(kind, since, until)), query, rows=rows, seed=seed)
        )

    def days(self, kind: str) -> list[date]:
        """The days that have a folder, sorted.

        Raises:
            EventsError: the storage is out of reach.
        """
        with self.one_line(kind):
            return [day for folder in self._folders(kind) if (day := _day(folder.base_name))]

    def listing(self, kind: str, day: date) -> Listing:
        """What is in the folder of a day.

        Raises:
            EventsError: the storage is out of reach.
        """
        with self.one_line(kind):
            return listing(self.filesystem, f"{self.root}/{kind}/date={day}", day, self.shown)

    def shown(self, path: str) -> str:
        """A path of the filesystem as messages have it."""
        return f"{self.location}{path.removeprefix(self.root)}"

    @contextmanager
    def one_line(self, place: str) -> Iterator[None]:
        """Turns errors of the filesystem into an EventsError of one line."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise EventsError(f"{self.location}/{place}: {reason(error)}; {CHECK}") from None

    def _parts(self, kind: PartKind, since: datetime | None, until: datetime | None) -> Iterator[Part]:
        """The parts in the folders of these days, sorted; a day is listed when its turn comes."""
        first, last = since.date() if since else date.min, (until - MICROSECOND).date() if until else date.max
        for day in self.days(kind.name):
            if first <= day <= last:
                found = self.listing(kind.name, day)
                for damaged in found.damaged:
                    self.on_damaged(damaged)
                yield from found.live

    def _folders(self, kind: str) -> list[Any]:
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(f"{self.root}/{kind}", allow_not_found=True))
        bucket = self.root.partition("/")[0]
        if not found and self.location.startswith("s3://") and self.filesystem.get_file_info(bucket).type == FileType.NotFound:
            raise EventsError(f"s3://{bucket}: there is no such bucket; correct the location, or create it")
        for info in found:
            if info.type == FileType.File and _day(info.base_name):
                self.on_damaged(Damaged(self.shown(info.path), "a file, expected the folder of a day"))
        return sorted((info for info in found if info.type == FileType.Directory), key=lambda info: str(info.path))

    def _report(self, part: Part, reason: str) -> None:
        self.on_damaged(Damaged(self.shown(part.path), reason))

    def _repeated(self, kind: PartKind, action: Callable[[], T]) -> T:
        """What the action returns, which begins again if the log is compacted meanwhile."""
        changed = ""
        for _ in range(ATTEMPTS):
            with self.one_line(kind.name):
                try:
                    return action()
                except ChangedError as error:
                    changed = str(error)
        raise EventsError(f"{self.shown(changed)}: disappeared while the log was read, {ATTEMPTS} times; try again")


def _between(table: pa.Table, column: str, first: int, end: int) -> pa.Table:
    """The rows with `first` ≤ time < `end`, in microseconds since 1970."""
    from pyarrow import compute as pc

    times = table[column].cast(pa.int64())
    return table.filter(pc.and_(pc.greater_equal(times, first), pc.less(times, end)))


def _day(folder: str) -> date | None:
    """The day of a folder `date=YYYY-MM-DD`; None for another folder."""
    try:
        return date.fromisoformat(folder.removeprefix("date=")) if folder.startswith("date=") else None
    except ValueError:
        return None
