"""The prediction log and the outcomes: append-only Parquet parts on a local folder or S3.

A part is `<kind>/date=YYYY-MM-DD/<name>.parquet`, the rows of one UTC day. It appears whole or not at all, and never changes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from churn.contract import ENTITY, LABEL, Category, Flag, Integer
from churn.errors import EventsError, SourceError
from churn.features import FEATURES, Feature
from churn.files import atomic_path
from churn.object_storage import s3

Kind = Literal["predictions", "outcomes"]

MOMENT = pa.timestamp("us", "UTC")
STALL_S = 5
"""Shorter than for reading raw rows: Arrow lets a process end only when its requests have, and a server is to end soon."""
SAMPLED_BATCH = 32_768
SAMPLED_PARTS = 1000
CHECK = "check the address, the credentials, the permissions and the space"


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


def _arrow_type(feature: Feature) -> pa.DataType:
    match feature.kind:
        case Category():
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


def open_sink(location: str | Path) -> "Sink":
    """The log at a folder, which need not exist yet, or at `s3://bucket/prefix`. Nothing is connected to yet.

    Raises:
        EventsError: it is neither, or the environment does not tell how to reach the storage.
    """
    from pyarrow.fs import LocalFileSystem

    shown = str(location).rstrip("/")
    if not shown.startswith("s3://"):
        if not shown or "://" in shown:
            raise EventsError(f"events: {str(location)!r} is neither a folder nor s3://bucket/prefix; correct it")
        return Sink(shown, LocalFileSystem(), shown)
    try:
        return Sink(shown, s3(request_timeout_s=STALL_S), shown.removeprefix("s3://"))
    except SourceError as error:
        raise EventsError(str(error)) from error


@dataclass(frozen=True)
class Sample:
    """Some of `total` predictions, in the order of the log, and when the newest of all was made (UTC)."""

    rows: pa.Table
    total: int
    newest: datetime | None


@dataclass(frozen=True)
class Sink:
    """Where the parts are: `root` in a pyarrow filesystem, shown as `location` in messages."""

    location: str
    filesystem: Any
    root: str

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
        part = f"{kind}/date={_only_day(table[TIMES[kind]])}/{name}.parquet"
        with self._mended(f"{self.location}/{part}"):
            if self._is_remote:
                with self.filesystem.open_output_stream(f"{self.root}/{part}") as stream:
                    stream.write(_parquet(table))
            else:
                _write_file(Path(self.root) / part, _parquet(table))
        return f"{self.location}/{part}"

    def read(
        self, kind: Kind, *, since: datetime | None = None, until: datetime | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows from `since` up to, not including, `until` (by `time`, outcomes by `received_at`), and of them `columns`.

        Only these days' folders and these columns are read. A column that an older part lacks is null there. Of outcomes that are
        the same report, the latest received is kept. There are no rows where nothing has been written yet.

        Raises:
            EventsError: it cannot be read.
        """
        from pyarrow import compute as pc
        from pyarrow import dataset

        schema = SCHEMAS[kind]()
        since, until = since and _utc(since), until and _utc(until)
        wanted = list(columns if columns is not None else schema.names)
        with self._mended(f"{self.location}/{kind}"):
            parts = list(self._parts(kind, since, until))
            data = dataset.dataset(parts, schema=schema, format="parquet", filesystem=self.filesystem)
            time, within = pc.field(TIMES[kind]), pc.scalar(True)
            within = within & (time >= pa.scalar(since, MOMENT)) if since else within
            within = within & (time < pa.scalar(until, MOMENT)) if until else within
            needed = [*dict.fromkeys([*wanted, "outcome_id", "received_at"])] if kind == "outcomes" else wanted
            rows = data.to_table(columns=needed, filter=within)
        return (_latest(rows) if kind == "outcomes" else rows).select(wanted)

    def sample(self, *, since: datetime, until: datetime, version: str, columns: Sequence[str], rows: int, seed: int) -> Sample:
        """At most `rows` of the version's predictions in that time, each as likely as any other.

        Memory does not grow with how many there are. Of more than `SAMPLED_PARTS` parts, so many are read, drawn at random and
        with the last: to open each of a busy week would take minutes. The total is then an estimate.

        Raises:
            EventsError: they cannot be read.
        """
        import numpy as np
        from pyarrow import compute as pc
        from pyarrow import dataset

        schema = prediction_schema()
        since, until, time = _utc(since), _utc(until), pc.field("time")
        within = (time >= pa.scalar(since, MOMENT)) & (time < pa.scalar(until, MOMENT))
        within &= pc.field("model_version") == version
        with self._mended(f"{self.location}/predictions"):
            parts = list(self._parts("predictions", since, until))
            random = np.random.default_rng(seed)
            drawn = parts
            if len(parts) > SAMPLED_PARTS:
                drawn = [parts[each] for each in np.sort(random.choice(len(parts) - 1, SAMPLED_PARTS - 1, replace=False))]
                drawn.append(parts[-1])
            data = dataset.dataset(drawn, schema=schema, format="parquet", filesystem=self.filesystem)
            scanner = data.scanner(
                columns=[*dict.fromkeys([*columns, "time"])],
                filter=within,
                batch_size=SAMPLED_BATCH,
                batch_readahead=4,
                fragment_readahead=2,
            )
            # A row stays if its random number is among the smallest: one pass, whatever the total.
            kept, numbers, total, newest = [], np.empty(0), 0, None
            for batch in scanner.to_batches():
                fresh = random.random(len(batch))
                total += len(batch)
                if len(batch):
                    latest = pc.max(batch["time"]).as_py()
                    newest = max(newest or latest, latest)
                bound = np.partition(numbers, rows - 1)[rows - 1] if len(numbers) >= rows else 1.0
                chosen = np.flatnonzero(fresh < bound)
                if len(chosen):
                    kept.append(batch.take(pa.array(chosen)))
                    numbers = np.concatenate([numbers, fresh[chosen]])
            table = pa.Table.from_batches(kept, schema=scanner.projected_schema)
        best = np.sort(np.argsort(numbers, kind="stable")[:rows])
        total = round(total * len(parts) / len(drawn)) if len(drawn) < len(parts) else total
        return Sample(table.take(pa.array(best)).select(list(columns)), total, newest)

    def _parts(self, kind: Kind, since: datetime | None, until: datetime | None) -> Iterator[str]:
        """The paths of the finished parts in the folders of these days, sorted."""
        first, last = since.date() if since else date.min, until.date() if until else date.max
        for folder in self._listed(f"{self.root}/{kind}"):
            if (day := _day(folder.base_name)) and first <= day <= last:
                yield from (each.path for each in self._listed(folder.path) if each.is_file and _is_finished(each.base_name))

    def _listed(self, folder: str) -> list[Any]:
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
        bucket = self.root.partition("/")[0]
        if not found and self._is_remote and self.filesystem.get_file_info(bucket).type == FileType.NotFound:
            raise EventsError(f"s3://{bucket}: there is no such bucket; correct the location, or create it")
        return sorted(found, key=lambda each: str(each.path))

    @contextmanager
    def _mended(self, shown: str) -> Iterator[None]:
        """Foreign exceptions become one line."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise EventsError(f"{shown}: {' '.join(str(error).split())}; {CHECK}") from error


def _parquet(table: pa.Table) -> pa.Buffer:
    from pyarrow.parquet import write_table

    stream = pa.BufferOutputStream()
    few = [each.name for each in FEATURES if isinstance(each.kind, Category) and each.name in table.column_names]
    repeated = [name for name in ("model_version",) if name in table.column_names]
    write_table(table, stream, compression="zstd", use_dictionary=[*few, *repeated])
    return stream.getvalue()


def _write_file(path: Path, content: pa.Buffer) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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


def _day(folder: str) -> date | None:
    """The day of a folder `date=YYYY-MM-DD`; None for another folder."""
    try:
        return date.fromisoformat(folder.removeprefix("date=")) if folder.startswith("date=") else None
    except ValueError:
        return None


def _is_finished(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith((".", "_"))


def _utc(moment: datetime) -> datetime:
    """The moment in UTC; without a zone it is taken as UTC."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
