"""The prediction log and the outcomes: append-only Parquet parts on a local folder or S3.

A part is `<kind>/date=YYYY-MM-DD/<name>.parquet`, the rows of one UTC day. It appears whole or not at all, and never changes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from churn.adapters.events.parts import ChangedError, Damaged, PartKind, microseconds
from churn.adapters.events.reader import DamageLog, Reader, Where
from churn.adapters.events.sampling import Query, Sample
from churn.adapters.files import write_durably
from churn.adapters.object_storage import s3
from churn.contract import ENTITY, LABEL, Category, Flag, Integer, Text
from churn.domain.derived import Feature
from churn.errors import EventsError, SourceError
from churn.features import FEATURES

Kind = Literal["predictions", "outcomes"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MOMENT = pa.timestamp("us", "UTC")
STALL_S = 5
"""Shorter than for reading raw rows: Arrow lets a process end only when its requests have, and a server is to end soon."""
BLOCK = 8 * 2**20


@cache
def prediction_schema() -> pa.Schema:
    """One row per scored row: who and when, every feature as it was scored, and what came of it. Times are UTC.

    Raises:
        ValueError: a column of the contract or a derived feature has the name of one of the log's own columns.
    """
    fields = [("prediction_id", pa.string()), ("time", MOMENT), (ENTITY, pa.string())]
    fields += [(each.name, _arrow_type(each)) for each in FEATURES]
    fields += [("churn_probability", pa.float64()), ("churn", pa.bool_())]
    fields += [("model_version", pa.string()), ("latency_ms", pa.float64())]
    return _without_namesakes(fields)


@cache
def outcome_schema() -> pa.Schema:
    """One row per reported outcome, about a customer or about a prediction. Times are UTC.

    Raises:
        ValueError: a column of the contract has the name of one of the log's own columns.
    """
    fields = [("outcome_id", pa.string()), (ENTITY, pa.string()), ("prediction_id", pa.string()), (LABEL, pa.bool_())]
    return _without_namesakes([*fields, ("observed_at", MOMENT), ("received_at", MOMENT), ("reporter", pa.string())])


SCHEMAS = {"predictions": prediction_schema, "outcomes": outcome_schema}
TIMES = {"predictions": "time", "outcomes": "received_at"}
"""The time by which a kind is put into folders, and read."""
REQUIRED = {
    "predictions": ("prediction_id", "time", "churn_probability", "model_version"),
    "outcomes": ("outcome_id", LABEL, "observed_at", "received_at"),
}
"""The columns that a part of the kind has always had."""


def part_kind(kind: Kind) -> PartKind:
    """What a part of the kind holds."""
    return PartKind(kind, SCHEMAS[kind](), TIMES[kind], REQUIRED[kind])


def _arrow_type(feature: Feature) -> pa.DataType:
    match feature.kind:
        case Category() | Text():
            return pa.string()
        case Flag():
            return pa.bool_()
        case Integer() if feature.null_as is None:
            return pa.int64()
        case _:
            return pa.float64()


def _without_namesakes(fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    names = [name for name, _ in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"contract.py: {', '.join(twice)}: the prediction log has columns of its own with that name; rename it")
    return pa.schema(fields)


def outcomes(reported: Sequence[Mapping[str, Any]], *, received_at: datetime) -> pa.Table:
    """The reports as a table to write: each has the entity or `prediction_id`, the label, `observed_at`, and `reporter` if known.

    Its `outcome_id` is a hash of the report, so that a report that comes twice counts once.

    Raises:
        EventsError: a report names both the entity and a prediction, or neither.
    """
    rows = []
    for each in reported:
        if (each.get(ENTITY) is None) == (each.get("prediction_id") is None):
            raise EventsError(f"outcome: {ENTITY} and prediction_id: exactly one must be given; leave the other out")
        observed = _utc(each["observed_at"])
        said = (each.get(ENTITY), each.get("prediction_id"), bool(each[LABEL]), observed.isoformat())
        key = sha256(repr(said).encode()).hexdigest()[:32]
        rows.append({**each, "outcome_id": key, "observed_at": observed, "received_at": _utc(received_at)})
    return pa.Table.from_pylist(rows, schema=outcome_schema())


def open_sink(location: str | Path, *, on_damaged: Callable[[Damaged], None] | None = None) -> "Sink":
    """The log at a folder, which need not exist yet, or at `s3://bucket/prefix`. Nothing is connected to yet.

    `on_damaged` is called with every damaged part that a reader skips, maybe several times; by default each is logged once.

    Raises:
        EventsError: it is neither, or the environment does not tell how to reach the storage.
    """
    from pyarrow.fs import LocalFileSystem

    shown = str(location).rstrip("/")
    if not shown.startswith("s3://"):
        if not shown or "://" in shown:
            raise EventsError(f"events: {str(location)!r} is neither a folder nor s3://bucket/prefix; correct it")
        return Sink(shown, LocalFileSystem(), shown, on_damaged or DamageLog())
    try:
        return Sink(shown, s3(request_timeout_s=STALL_S), shown.removeprefix("s3://"), on_damaged or DamageLog())
    except SourceError as error:
        raise EventsError(str(error)) from error


@dataclass(frozen=True)
class Sink:
    """Where the parts are: `root` in a pyarrow filesystem, shown as `location` in messages."""

    location: str
    filesystem: Any
    root: str
    on_damaged: Callable[[Damaged], None] = field(default_factory=DamageLog, compare=False, repr=False)
    """Called with every damaged part that is skipped, maybe several times; the default logs it once."""

    @property
    def reader(self) -> Reader:
        """What reads the parts."""
        return Reader(self.location, self.filesystem, self.root, self.on_damaged)

    @property
    def _is_remote(self) -> bool:
        return self.location.startswith("s3://")

    def write(self, kind: Kind, table: pa.Table, name: str) -> str:
        """Write the rows, all of one UTC day, as the part `name`, in place of an earlier one of that name; returns where it is.

        Categories may come dictionary-encoded. Where this returns, the part outlives a loss of power.

        Raises:
            EventsError: it cannot be written.
            ValueError: the table has no rows, lacks a column of the kind's schema, or its rows are of several days.
        """
        schema = SCHEMAS[kind]()
        table = table.select(schema.names).cast(schema)
        return self._put(f"{kind}/date={_only_day(table[TIMES[kind]])}/{name}.parquet", [_parquet(table)])

    def publish(self, kind: Kind, day: date, name: str, file: Path) -> str:
        """Copy a Parquet file into the log as the part `name` of that day; returns where it is.

        Raises:
            EventsError: it cannot be written.
            OSError: the file cannot be read.
        """
        with file.open("rb") as source:
            return self._put(f"{kind}/date={day}/{name}.parquet", iter(lambda: source.read(BLOCK), b""))

    def _put(self, part: str, blocks: Iterable[Any]) -> str:
        with self.reader.one_line(part):
            if self._is_remote:
                with self.filesystem.open_output_stream(f"{self.root}/{part}") as stream:
                    for block in blocks:
                        stream.write(block)
            else:
                write_durably(Path(self.root) / part, blocks)
        return f"{self.location}/{part}"

    def read(
        self,
        kind: Kind,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        columns: Sequence[str] | None = None,
        where: Where | None = None,
    ) -> pa.Table:
        """The rows from `since` up to, not including, `until` (by `time`, outcomes by `received_at`), and of them `columns`.

        Only these days' folders and these columns are read. A column that an older part lacks is null there. Of outcomes that are
        the same report, the latest received is kept. There are no rows where nothing has been written yet. `where` leaves out
        rows before they are collected: it gets a table of the columns and returns an array of booleans.

        Raises:
            EventsError: the storage is out of reach.
        """
        wanted = list(columns if columns is not None else SCHEMAS[kind]().names)
        needed = [*dict.fromkeys([*wanted, "outcome_id", "received_at"])] if kind == "outcomes" else wanted
        rows = self.reader.read(part_kind(kind), since and _utc(since), until and _utc(until), needed, where)
        return (_latest(rows) if kind == "outcomes" else rows).select(wanted)

    def stream(self, kind: Kind, *, since: datetime, until: datetime, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The same rows in constant memory, a table after another; a report that came several times is there several times.

        Raises:
            EventsError: the storage is out of reach, or the log was compacted meanwhile: what was read must be read again.
        """
        try:
            yield from self.reader.stream(part_kind(kind), _utc(since), _utc(until), columns, None)
        except ChangedError as error:
            raise EventsError(f"{self.reader.shown(str(error))}: disappeared while the log was read; try again") from error

    def sample(self, *, since: datetime, until: datetime, version: str, columns: Sequence[str], rows: int, seed: int) -> Sample:
        """At most `rows` of the version's predictions in that time, each as likely as any other.

        Memory and time do not grow with how many there are: of many parts and row groups, some are drawn at random
        (`churn.adapters.events.sampling`). The total is exact where all are read or the metadata tell it, else an estimate.

        Raises:
            EventsError: the storage is out of reach.
        """
        query = Query(microseconds(_utc(since)), microseconds(_utc(until)), version, tuple(columns))
        return self.reader.sample(part_kind("predictions"), query, rows=rows, seed=seed)


def _parquet(table: pa.Table) -> pa.Buffer:
    from pyarrow.parquet import write_table

    stream = pa.BufferOutputStream()
    few = [each.name for each in FEATURES if isinstance(each.kind, Category) and each.name in table.column_names]
    repeated = [name for name in ("model_version",) if name in table.column_names]
    write_table(table, stream, compression="zstd", use_dictionary=[*few, *repeated])
    return stream.getvalue()


def _latest(outcomes: pa.Table) -> pa.Table:
    """One row per outcome_id, the latest received; in the order of receipt."""
    ordered = outcomes.sort_by([("received_at", "ascending")])
    ordered = ordered.append_column("row", pa.array(range(len(ordered)), pa.int64()))
    kept = ordered.group_by("outcome_id").aggregate([("row", "max")])["row_max"]
    return ordered.take(kept.combine_chunks().sort()) if len(ordered) else ordered


def _only_day(times: pa.ChunkedArray) -> date:
    from pyarrow import compute as pc

    bounds = pc.min_max(times)
    days: set[date] = {bounds[name].as_py().date() for name in ("min", "max") if bounds[name].is_valid}
    if len(days) != 1:
        raise ValueError(f"events: a part has the rows of one day, these are of {len(days)}; split them")
    return days.pop()


def _utc(moment: datetime) -> datetime:
    """The moment in UTC; without a zone it is taken as UTC."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
