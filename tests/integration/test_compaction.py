"""Days of the event log become one part, and every row is read once: before, during and after a compaction, and after a kill."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn.adapters.events import compaction, sampling
from churn.adapters.events.compaction import Result, compact
from churn.adapters.events.log import Kind, Sink, open_sink, outcomes, prediction_schema
from churn.adapters.events.parts import Damaged
from churn.adapters.events.row_groups import Group, read_group
from churn.contract import ENTITY, LABEL
from churn.errors import EventsError
from event_parts import DAY, NOON, predictions

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
AFTER = timedelta(days=1)
NONE = timedelta(0)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""Long after every part was written, by the storage's clock too."""
TODAY = NOON.date()
PARTS, ROWS = 12, 5


@pytest.fixture
def folder(tmp_path: Path) -> Sink:
    return open_sink(tmp_path / "events")


def fill(sink: Sink, *, day: int = 0, parts: int = PARTS, prefix: str = "") -> list[str]:
    """Write small parts of one day; returns the ids of their rows in the order of time."""
    ids = []
    for number in range(parts):
        named = [f"{prefix}{day}-{number}-{row}" for row in range(ROWS)]
        at = NOON + day * DAY + timedelta(minutes=number)
        sink.write("predictions", predictions(ROWS, at=at, prediction_id=named), f"{prefix}{number:04d}")
        ids += named
    return ids


def read(sink: Sink) -> list[str]:
    """The ids of every row that is read."""
    return [str(each) for each in sink.read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist()]


def files(sink: Sink, day: date = TODAY, kind: Kind = "predictions") -> list[str]:
    """The names of the files in a day's folder."""
    listing = sink.reader.listing(kind, day)
    return sorted(part.name for part in (*listing.live, *listing.replaced))


def compacted(sink: Sink, **options: Any) -> Result:
    return compact(sink, now=LATER, after=AFTER, grace=NONE, **options)


def test_a_day_becomes_one_part_with_the_same_rows_sorted_by_time(sink: Sink) -> None:
    ids = fill(sink)
    before = sink.read("predictions")

    first = compacted(sink)
    assert (first.days, first.merged, first.is_complete) == (1, PARTS, True)
    assert read(sink) == ids
    compacted(sink)

    assert len(files(sink)) == 1
    assert sink.read("predictions").equals(before)


def test_a_second_compaction_does_nothing(sink: Sink) -> None:
    fill(sink)
    compacted(sink)
    compacted(sink)
    before = files(sink)

    assert compacted(sink) == Result()
    assert files(sink) == before


def test_replaced_parts_are_kept_for_running_readers(folder: Sink) -> None:
    fill(folder)
    now = datetime.now(UTC) + timedelta(minutes=1)

    compact(folder, now=now, after=AFTER)
    assert compact(folder, now=now, after=AFTER).deleted == 0
    assert len(files(folder)) == PARTS + 1

    assert compact(folder, now=now + compaction.GRACE, after=AFTER).deleted == PARTS
    assert len(files(folder)) == 1


@pytest.mark.parametrize(("now", "days"), [(NOON + timedelta(hours=36), 1), (NOON + timedelta(hours=35, minutes=59), 0)])
def test_a_day_is_compacted_after_a_delay(folder: Sink, now: datetime, days: int) -> None:
    fill(folder)

    assert compact(folder, now=now, after=AFTER).days == days


def test_a_late_part_is_read_and_merged_by_the_next_run(sink: Sink) -> None:
    ids = fill(sink)
    compacted(sink)
    late = fill(sink, parts=2, prefix="late")

    assert sorted(read(sink)) == sorted(ids + late)
    assert compacted(sink).days == 1
    assert sorted(read(sink)) == sorted(ids + late)
    compacted(sink)

    assert len(files(sink)) == 1
    assert sorted(read(sink)) == sorted(ids + late)


def test_a_merged_part_that_is_written_again_does_not_count_twice(folder: Sink) -> None:
    ids = fill(folder)
    for _ in range(2):
        compacted(folder)
    late = fill(folder, parts=1, prefix="late")
    for _ in range(2):
        compacted(folder)

    fill(folder, parts=1)

    assert sorted(read(folder)) == sorted(ids + late)


def test_two_compactions_of_different_parts_keep_every_row_once(folder: Sink, tmp_path: Path) -> None:
    ids = fill(folder)
    other = open_sink(tmp_path / "other")
    fill(other)
    late = fill(other, parts=2, prefix="late")
    compacted(folder)
    compacted(other)
    day = Path(folder.root) / f"predictions/date={NOON.date()}"
    for part in Path(other.root).rglob("*.parquet"):
        if not (day / part.name).exists():
            (day / part.name).write_bytes(part.read_bytes())

    assert sorted(read(folder)) == sorted(ids + late)
    for _ in range(2):
        compacted(folder)
        assert sorted(read(folder)) == sorted(ids + late)
    assert len(files(folder)) == 1


def test_concurrent_compactions_keep_every_row_once(sink: Sink) -> None:
    ids = [each for day in range(3) for each in fill(sink, day=day)]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: compact(sink, now=LATER, after=AFTER, grace=NONE), range(6)))
    assert sorted(read(sink)) == sorted(ids)
    compacted(sink)
    compacted(sink)

    assert sorted(read(sink)) == sorted(ids)
    assert [len(files(sink, (NOON + day * DAY).date())) for day in range(3)] == [1, 1, 1]


def test_readers_get_every_row_once_during_compaction(folder: Sink) -> None:
    ids = sorted(each for day in range(8) for each in fill(folder, day=day, parts=40))

    with ThreadPoolExecutor(1) as pool:
        # Without grace, parts disappear under the readers.
        working = pool.submit(lambda: [compacted(folder) for _ in range(2)])
        while not working.done():
            assert sorted(read(folder)) == ids
        working.result()
    assert sorted(read(folder)) == ids


class Vanishing:
    """A filesystem where the first part that is fetched is replaced meanwhile, with the error that S3 has then."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._left = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink.filesystem, name)

    def open_input_stream(self, path: str) -> Any:
        if self._left:
            self._left -= 1
            compacted(self._sink)
            compacted(self._sink)
            raise OSError("AWS Error RESOURCE_NOT_FOUND during GetObject operation:")
        return self._sink.filesystem.open_input_stream(path)


def test_a_reader_restarts_if_a_part_is_replaced_during_the_read(sink: Sink) -> None:
    ids = fill(sink)

    assert read(Sink(sink.location, Vanishing(sink), sink.root)) == ids


KILLED = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from churn.adapters.events import compaction, log as events
from churn.adapters import files
from churn.adapters.events.log import open_sink

step, left = sys.argv[2], int(sys.argv[3])

def killing(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

match step:
    case "read": compaction.read_group = killing(compaction.read_group)
    case "write": compaction._Merged.close = killing(compaction._Merged.close)
    case "publish": compaction.Sink.publish = killing(compaction.Sink.publish)
    case "sync": os.fsync = killing(os.fsync)
    case "delete": compaction._Day._delete = killing(compaction._Day._delete)
for _ in range(2):
    compaction.compact(
        open_sink(sys.argv[1]), now=datetime(2100, 1, 1, tzinfo=UTC), after=timedelta(days=1), grace=timedelta(0)
    )
"""


@pytest.mark.parametrize(
    ("step", "left"),
    [
        *(("read", 0), ("read", 20), ("write", 0), ("publish", 0), ("publish", 1)),
        *(("sync", 0), ("sync", 1), ("sync", 3), ("delete", 0), ("delete", 5), ("delete", 15)),
    ],
)
def test_a_killed_compaction_neither_loses_nor_repeats_a_row(folder: Sink, step: str, left: int) -> None:
    ids = sorted(each for day in range(2) for each in fill(folder, day=day))

    done = subprocess.run([sys.executable, "-c", KILLED, folder.root, step, str(left)], cwd=ROOT, check=False)

    assert done.returncode == -9
    assert sorted(read(folder)) == ids
    for _ in range(2):
        compacted(folder)
        assert sorted(read(folder)) == ids
    left_over = sorted(path.name for path in Path(folder.root).rglob("*") if path.is_file())
    assert len(left_over) == 2, left_over


def test_compacting_outcomes_keeps_every_report(folder: Sink) -> None:
    for number in range(5):
        report = {ENTITY: f"c{number % 3}", LABEL: True, "observed_at": NOON}
        folder.write("outcomes", outcomes([report], received_at=NOON + number * timedelta(minutes=1)), f"{number}")
    before = folder.read("outcomes")

    compacted(folder)
    compacted(folder)

    assert len(files(folder, kind="outcomes")) == 1
    assert folder.read("outcomes").equals(before)


def test_a_damaged_part_is_reported_and_not_moved(tmp_path: Path) -> None:
    found: list[Damaged] = []
    sink = open_sink(tmp_path, on_damaged=found.append)
    ids = fill(sink)
    bad = tmp_path / f"predictions/date={NOON.date()}/0003b.parquet"
    bad.write_bytes(b"PAR1")

    compacted(sink)
    compacted(sink)

    assert read(sink) == ids
    assert bad.exists()
    assert {each.place for each in found} == {str(bad)}


def test_a_damaged_compacted_part_is_not_merged_and_other_rows_are_kept(tmp_path: Path) -> None:
    found: list[Damaged] = []
    sink = open_sink(tmp_path, on_damaged=found.append)
    fill(sink)
    compacted(sink)
    compacted(sink)
    (part,) = (tmp_path / f"predictions/date={NOON.date()}").glob("compacted-*")
    part.write_bytes(part.read_bytes()[:-10])
    late = fill(sink, parts=3, prefix="late")

    compacted(sink)
    compacted(sink)

    assert sorted(read(sink)) == sorted(late)
    assert part.exists()
    assert {each.place for each in found} == {str(part)}


def test_parts_of_an_earlier_contract_keep_their_columns(folder: Sink) -> None:
    day = Path(folder.write("predictions", predictions(), "new-0")).parent
    folder.write("predictions", predictions(), "new-1")
    for number in range(2):
        older = predictions().drop_columns(["extras"]).append_column("gone", pa.array([1, 2, 3]))
        pq.write_table(older, day / f"old-{number}.parquet")

    compacted(folder)
    compacted(folder)

    schemas = [pq.read_schema(path) for path in sorted(day.glob("*.parquet"))]
    assert sorted("gone" in schema.names for schema in schemas) == [False, True]
    assert folder.read("predictions")["extras"].null_count == 6


def test_a_stopped_compaction_is_completed_by_the_next(folder: Sink) -> None:
    ids = fill(folder)

    stopped = compacted(folder, is_stopped=lambda: True)

    assert (stopped.days, stopped.is_complete) == (0, False)
    assert read(folder) == ids
    assert compacted(folder).days == 1


def test_unreachable_storage_is_an_error_in_one_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    with pytest.raises(EventsError, match="check the address"):
        compact(open_sink("s3://log/events"), now=LATER, after=AFTER)


# Samples of compacted days


@pytest.fixture
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of ten rows."""
    monkeypatch.setattr(compaction, "ROW_GROUP", 10)
    monkeypatch.setattr(compaction, "BUFFERED", 20)


def sampled(sink: Sink, *, rows: int = 20, seed: int = 0, **changes: Any) -> sampling.Sample:
    query: dict[str, Any] = {"since": NOON - DAY, "until": NOON + 9 * DAY, "version": "x", "columns": ["prediction_id"]} | changes
    return sink.sample(rows=rows, seed=seed, **query)


@pytest.mark.usefixtures("small_row_groups")
def test_the_total_of_sampled_compacted_days_is_exact(folder: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLED_ROWS", 50)
    fill(folder, parts=40)
    compacted(folder)
    compacted(folder)

    found = sampled(folder)

    assert (found.total, found.rows.num_rows) == (200, 20)
    assert found.newest == NOON + timedelta(minutes=39, seconds=4)


@pytest.mark.usefixtures("small_row_groups")
def test_a_window_within_a_compacted_day_has_only_its_rows(folder: Sink) -> None:
    fill(folder, parts=40)
    compacted(folder)
    since, until = NOON + timedelta(minutes=3, seconds=2), NOON + timedelta(minutes=20, seconds=1)

    found = sampled(folder, rows=1000, since=since, until=until)

    expected = folder.read("predictions", since=since, until=until, columns=["prediction_id"])
    assert found.total == 3 + 16 * ROWS + 1
    assert sorted(found.rows["prediction_id"].to_pylist()) == sorted(expected["prediction_id"].to_pylist())


def test_only_the_versions_rows_of_a_compacted_day_are_sampled(folder: Sink) -> None:
    for number, version in enumerate(["1", "1", "2", "11"]):
        at = NOON + timedelta(minutes=number)
        folder.write("predictions", predictions(at=at, model_version=[version] * 3), f"{number}")
    compacted(folder)

    assert [sampled(folder, version=version).total for version in ("1", "11", "2", "3")] == [6, 3, 3, 0]


@pytest.mark.usefixtures("small_row_groups")
def test_compacted_and_single_parts_are_sampled_equally_often(folder: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLED_ROWS", 100)
    monkeypatch.setattr(sampling, "SAMPLED_PARTS", 8)
    fill(folder, parts=40)
    compacted(folder)
    compacted(folder)
    fill(folder, day=1, parts=40)

    drawn = [str(each)[0] for seed in range(200) for each in sampled(folder, seed=seed).rows["prediction_id"].to_pylist()]

    # Half of the rows are of the first day: 2000 of 4000, with a standard deviation of some 100, for rows come in groups.
    assert abs(drawn.count("0") - 2000) < 400


def test_fewer_single_parts_are_sampled_if_most_days_are_compacted(folder: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLED_PARTS", 40)
    monkeypatch.setattr(sampling, "FEWEST_PARTS", 10)
    for day in range(3):
        fill(folder, day=day, parts=2)
    compacted(folder)
    compacted(folder)
    fill(folder, day=3, parts=60)

    found = sampled(folder, rows=1000)

    # Ten of the sixty parts, five rows each, and all of the three days.
    assert found.rows.num_rows == 10 * ROWS + 3 * 2 * ROWS
    assert found.total == 60 * ROWS + 3 * 2 * ROWS


@pytest.mark.usefixtures("small_row_groups")
def test_a_row_group_outside_the_window_is_not_read(folder: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, parts=40)
    compacted(folder)
    read_groups: list[Group] = []

    def counted(group: Group, schema: pa.Schema) -> pa.Table:
        read_groups.append(group)
        return read_group(group, schema)

    monkeypatch.setattr(sampling, "read_group", counted)

    sampled(folder, since=NOON, until=NOON + timedelta(minutes=4))

    assert len(read_groups) == 2


def test_a_compacted_part_has_the_schema_of_the_log(folder: Sink) -> None:
    fill(folder)
    compacted(folder)

    (part,) = Path(folder.root).rglob("compacted-*")
    assert pq.read_schema(part).remove_metadata().equals(prediction_schema())
