"""The prediction log: no row is lost or repeated, no request waits for it, and every row is counted."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow.fs import LocalFileSystem
from sklearn.ensemble import GradientBoostingClassifier

import serving.prediction_log as module
from churn.adapters import onnx
from churn.adapters.events.log import Kind, Sink, open_sink, prediction_schema
from churn.adapters.rows import arrays
from churn.contract import ENTITY, RAW_FEATURES
from churn.domain.encoding import Coded, derive, encode
from churn.errors import EventsError
from churn.features import FEATURES
from factory import rows
from serving.log_rows import Entry, to_table
from serving.prediction_log import PredictionLog

pytestmark = pytest.mark.slow

RAW = [each.name for each in RAW_FEATURES]
THRESHOLD = 0.3
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
HOUR_S = 3600


def columns_of(frame: pd.DataFrame) -> dict[str, Any]:
    """Every feature of the rows, as the server scores them: categories as `Coded`, nulls as NaN."""
    return derive(arrays(pa.RecordBatch.from_pandas(frame[RAW], preserve_index=False)))


def entries(n: int, *, batch: int = 1, at: float = NOON, first: int = 0, **overrides: Any) -> Iterator[Entry]:
    """`n` requests of one row, scored in batches of that many; the ids begin at `first`."""
    columns, probabilities = columns_of(rows(batch, **overrides)), np.linspace(0.1, 0.9, batch)
    for index in range(n):
        number, start = first + index, index % batch
        ids = [f"p{number}"], [f"c{number}" if number % 3 else None]
        row = {name: values[[start]] for name, values in columns.items()}
        yield Entry(at + index / 1000, "7", THRESHOLD, *ids, row, probabilities[[start]], [1.5])


class FailingSink(Sink):
    """Writes to a folder, unless it is configured to fail (with or without having written) or to hang."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), LocalFileSystem(), str(folder))
        vars(self).update(down=False, forgetful=False, tried=[], released=threading.Event(), reached=threading.Event())
        self.released.set()

    down: bool
    forgetful: bool
    tried: list[str]
    released: threading.Event
    reached: threading.Event

    def configure(self, **how: bool) -> None:
        vars(self).update(how)

    def write(self, kind: Kind, table: pa.Table, name: str) -> str:
        self.tried.append(name)
        self.reached.set()
        self.released.wait()
        if self.down:
            raise EventsError(f"{self.location}: the disk is full")
        place = super().write(kind, table, name)
        if self.forgetful:
            raise EventsError(f"{self.location}: no answer")
        return place


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.01)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[FailingSink]:
    found = FailingSink(tmp_path)
    yield found
    found.released.set()


def started(sink: Sink | Path, **options: Any) -> PredictionLog:
    log = PredictionLog(sink, **options)
    log.start()
    return log


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; the bound only ends a test that has failed."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def logged(sink: Sink | Path) -> list[str]:
    found = (sink if isinstance(sink, Sink) else open_sink(sink)).read("predictions", columns=["prediction_id"])
    return [str(each) for each in found["prediction_id"].to_pylist()]


def named(*numbers: range) -> list[str]:
    return [f"p{number}" for each in numbers for number in each]


def test_a_row_is_logged_as_it_was_scored(tmp_path: Path) -> None:
    log = started(tmp_path)
    entry = next(entries(1, at=NOON + 0.123456, first=1, commitment="Season", member_months=0))

    log.append(entry)
    log.close(60)

    (row,) = open_sink(tmp_path).read("predictions").to_pylist()
    assert row["time"] == datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
    assert (row["prediction_id"], row[ENTITY], row["model_version"]) == ("p1", "c1", "7")
    assert (row["churn_probability"], row["churn"], row["latency_ms"]) == (0.1, False, 1.5)
    assert (row["commitment"], row["member_months"], row["total_fees"]) == ("Season", 0, None)
    assert [row[name] for name in ("extras", "is_beginner")] == [entry.columns[name][0] for name in ("extras", "is_beginner")]


def test_batches_of_many_rows_keep_their_own_rows(tmp_path: Path) -> None:
    log = started(tmp_path)
    frame = rows(10)
    columns, probabilities = columns_of(frame), np.linspace(0, 1, 10)
    slices = [(0, 3), (3, 4), (7, 10), (4, 7)]

    for at, (start, stop) in enumerate(slices):
        ids = [f"p{number}" for number in range(start, stop)]
        cut = {name: values[slice(start, stop)] for name, values in columns.items()}
        log.append(
            Entry(NOON + at, f"v{at}", 0.5, ids, [None] * len(ids), cut, probabilities[start:stop], [float(at)] * len(ids))
        )
    log.close(60)

    found = open_sink(tmp_path).read("predictions").to_pandas()
    order = [0, 1, 2, 3, 7, 8, 9, 4, 5, 6]
    assert found.prediction_id.tolist() == [f"p{number}" for number in order]
    assert found.model_version.tolist() == ["v0"] * 3 + ["v1"] + ["v2"] * 3 + ["v3"] * 3
    assert found.monthly_fee.tolist() == frame.monthly_fee[order].tolist()
    assert found.paid_by.tolist() == frame.paid_by.astype(str)[order].tolist()
    assert found.churn.tolist() == (probabilities >= 0.5)[order].tolist()


def test_categories_are_decoded_in_any_order_and_unknown_ones_are_null(tmp_path: Path) -> None:
    log = started(tmp_path)
    one, other, third = entries(3)
    values = one.columns["commitment"].values

    log.append(one._replace(columns={**one.columns, "commitment": Coded(np.array([0], np.int16), values)}))
    log.append(other._replace(columns={**other.columns, "commitment": Coded(np.array([0], np.int16), values[::-1])}))
    log.append(third._replace(columns={**third.columns, "commitment": Coded(np.array([-1], np.int16), values[::-1])}))
    log.close(60)

    assert open_sink(tmp_path).read("predictions")["commitment"].to_pylist() == [values[0], values[-1], None]


def test_every_logged_row_scores_again_to_the_same_probability(tmp_path: Path) -> None:
    frame = pd.concat([rows(300), rows(20, member_months=0)], ignore_index=True)
    X = encode(columns_of(frame))
    likely = np.where(frame.member_months < 360, 0.8, 0.1)
    fitted = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(X, np.random.default_rng(0).random(len(X)) < likely)
    model = onnx.session(onnx.export(fitted, X, metadata={}))
    scored = onnx.predict(model, X)
    ids, no_customers = [f"p{number}" for number in range(len(X))], [None] * len(X)
    log = started(tmp_path)

    log.append(Entry(NOON, "7", THRESHOLD, ids, no_customers, columns_of(frame), scored, [1.5] * len(X)))
    log.close(60)

    table = open_sink(tmp_path).read("predictions")
    again = derive(arrays(table.select(RAW).combine_chunks().to_batches()[0].cast(_dictionaries(table.select(RAW).schema))))
    np.testing.assert_array_equal(table["churn_probability"], scored)
    np.testing.assert_array_equal(onnx.predict(model, encode(again)), scored)
    for name in {each.name for each in FEATURES} - {*RAW}:
        np.testing.assert_array_equal(table[name], again[name])


def _dictionaries(schema: pa.Schema) -> pa.Schema:
    texts = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([(each.name, texts if each.type == pa.string() else each.type) for each in schema])


def test_a_part_is_written_as_soon_as_it_is_full(tmp_path: Path) -> None:
    log = started(tmp_path, part_rows=10, flush_s=3600)

    for entry in entries(9):
        log.append(entry)
    assert log.counts() == (9, 0, 0)
    for entry in entries(1, first=9):
        log.append(entry)

    until(lambda: log.written_rows == 10)
    assert logged(tmp_path) == named(range(10))
    assert log.flushed_at > 0
    log.close(60)


def test_a_part_that_is_not_full_is_written_after_the_interval(tmp_path: Path) -> None:
    log = started(tmp_path, flush_s=0.05)

    log.append(next(entries(1)))

    until(lambda: log.counts() == (0, 1, 0))
    assert logged(tmp_path) == ["p0"]
    log.close(60)


def test_close_writes_all_rows_and_later_rows_are_counted_as_dropped(tmp_path: Path) -> None:
    log = started(tmp_path)
    first, later = entries(2)

    log.append(first)
    log.close(60)
    log.append(later)

    assert log.counts() == (0, 1, 1)
    assert logged(tmp_path) == ["p0"]


def test_a_log_closed_before_its_start_counts_its_rows_as_dropped(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append(next(entries(1)))

    log.close(60)

    assert log.counts() == (0, 0, 1)


def test_rows_of_two_days_go_into_the_folders_of_their_days(tmp_path: Path) -> None:
    log = started(tmp_path)
    midnight = NOON + 12 * HOUR_S

    # The last of them is nearer to midnight than a microsecond.
    for number, at in enumerate([midnight - 1, midnight, midnight - 2, midnight - 1e-7]):
        log.append(next(entries(1, at=at, first=number)))
    log.close(60)

    until_midnight = open_sink(tmp_path).read("predictions", until=datetime.fromtimestamp(midnight, UTC))
    assert sorted(until_midnight["prediction_id"].to_pylist()) == ["p0", "p2"]
    assert log.counts() == (0, 4, 0)
    assert sorted(each.name for each in (tmp_path / "predictions").iterdir()) == ["date=2026-03-01", "date=2026-03-02"]


def test_a_part_name_has_time_host_process_and_number(sink: FailingSink) -> None:
    log = started(sink, part_rows=1, flush_s=3600)

    for number in range(2):
        log.append(next(entries(1, first=number)))
        until(lambda: log.queued_rows == 0)
    log.close(60)

    form = rf"\d{{8}}T\d{{6}}\.\d{{6}}Z-[\w.-]+-{os.getpid()}-00000"
    assert [bool(re.fullmatch(form + end, name)) for end, name in zip("12", sink.tried, strict=True)] == [True, True]


def test_a_recovered_sink_gets_every_row(sink: FailingSink) -> None:
    sink.configure(down=True)
    log = started(sink, part_rows=10, flush_s=0.02)

    for entry in entries(35):
        log.append(entry)
    until(lambda: log.failed_flushes >= 3)
    assert log.counts() == (35, 0, 0)
    sink.configure(down=False)

    until(lambda: log.counts() == (0, 35, 0))
    assert logged(sink) == named(range(35))
    log.close(60)


def test_a_retried_part_keeps_its_name(sink: FailingSink) -> None:
    sink.configure(forgetful=True)
    log = started(sink, flush_s=0.02)
    log.append(next(entries(1)))
    until(lambda: log.failed_flushes >= 2)

    sink.configure(forgetful=False)
    log.close(60)

    assert len(sink.tried) >= 3
    assert len({*sink.tried}) == 1
    assert logged(sink) == ["p0"]


def test_rows_beyond_the_capacity_are_dropped_until_there_is_space(sink: FailingSink) -> None:
    sink.configure(down=True)
    log = started(sink, capacity_rows=20, part_rows=8, flush_s=0.02)

    for entry in entries(50):
        log.append(entry)
    until(lambda: log.failed_flushes >= 1)
    assert log.counts() == (20, 0, 30)
    sink.configure(down=False)
    until(lambda: log.queued_rows == 0)
    for entry in entries(5, first=50):
        log.append(entry)
    log.close(60)

    assert log.counts() == (0, 25, 30)
    assert logged(sink) == named(range(20), range(50, 55))


def test_a_batch_is_queued_atomically(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, capacity_rows=10)
    columns, probabilities = columns_of(rows(8)), np.zeros(8)
    request = Entry(NOON, "7", 0.5, ["p"] * 8, [None] * 8, columns, probabilities, [1.0] * 8)

    log.append(request)
    log.append(request)

    assert log.counts() == (8, 0, 8)


def test_small_parts_are_merged_while_a_sink_fails(sink: FailingSink) -> None:
    sink.configure(down=True)
    log = started(sink, part_rows=1000, flush_s=0.001)
    log.append(next(entries(1)))
    until(lambda: log.failed_flushes >= 1)

    for number in range(1, 50):
        log.append(next(entries(1, first=number)))
        time.sleep(0.002)
    sink.configure(down=False)
    log.close(60)

    assert logged(sink) == named(range(50))
    assert len({*sink.tried}) == 2


def test_retries_slow_down_to_a_limit(
    sink: FailingSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LAST_RETRY_S", 0.03)
    sink.configure(down=True)
    log = started(sink, flush_s=0.01)

    log.append(next(entries(1)))
    until(lambda: log.failed_flushes >= 4)
    log.close(0)

    delays = [float(found[1]) for each in caplog.messages if (found := re.search(r"next try in ([\d.]+) s", each))]
    assert delays[:4] == [0.01, 0.02, 0.03, 0.03]


def test_close_interrupts_the_retry_delay_and_times_out(sink: FailingSink, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.configure(down=True)
    log = started(sink, flush_s=0.01)
    monkeypatch.setattr(module, "FIRST_RETRY_S", 3600.0)
    log.append(next(entries(1)))
    until(lambda: log.failed_flushes == 1)

    begun = time.monotonic()
    log.close(0.5)

    assert time.monotonic() - begun < 30
    assert log.failed_flushes == 2
    assert log.counts() == (0, 0, 1)


def test_a_hanging_sink_blocks_neither_append_nor_close(sink: FailingSink) -> None:
    sink.released.clear()
    log = started(sink, capacity_rows=30, part_rows=10, flush_s=0.01)

    for entry in entries(20):
        log.append(entry)
    until(sink.reached.is_set)
    for entry in entries(20, first=20):
        log.append(entry)
    assert log.counts() == (30, 0, 10)
    log.close(0.1)
    assert log.counts() == (0, 0, 40)

    sink.released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("prediction-log"):
            thread.join(60)
    assert log.counts() == (0, 0, 40)


def test_storage_that_never_responds_blocks_neither_append_nor_close() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        code = """if True:
            import sys, time
            sys.path[:0] = [".", "tests/support", "tests/serving"]
            from test_prediction_log import entries, started
            log = started("s3://bucket/events", part_rows=10, flush_s=0.01)
            for entry in entries(1000):
                log.append(entry)
            time.sleep(0.2)
            begun = time.monotonic()
            log.close(0.2)
            print(time.monotonic() - begun < 10, *log.counts(), flush=True)
            from os import _exit; _exit(0)
        """
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        place = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **keys, **place},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )

    assert done.stdout == "True 0 0 1000\n"


@pytest.fixture
def often_switched() -> Iterator[Callable[[], None]]:
    """Let threads take turns so often that every order of events occurs."""
    before = sys.getswitchinterval()
    yield lambda: sys.setswitchinterval(1e-6)
    sys.setswitchinterval(before)


def test_counts_are_exact_at_every_moment_while_four_threads_append(
    sink: FailingSink, often_switched: Callable[[], None]
) -> None:
    log = started(sink, capacity_rows=500, part_rows=50, flush_s=0.001)
    each_of = [list(entries(5000, batch=50, first=5000 * number)) for number in range(4)]
    begun, sums = [0] * 4, []

    def append(number: int) -> None:
        for entry in each_of[number]:
            begun[number] += 1
            log.append(entry)
            if begun[number] % 500 == 0:
                sink.configure(down=not sink.down)

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    often_switched()
    for thread in threads:
        thread.start()
    alive = True
    while alive:
        alive = any(thread.is_alive() for thread in threads)
        # Between the two counts each thread may have finished one append that the first count missed, and begun another.
        before = sum(begun) - 4
        total = sum(log.counts())
        sums.append(before <= total <= sum(begun))
    sink.configure(down=False)
    log.close(60)

    assert sums
    assert all(sums)
    assert sum(log.counts()) == 20_000
    assert log.queued_rows == 0
    assert len(logged(sink)) == len({*logged(sink)}) == log.written_rows
    assert log.written_rows > 0


def test_rows_that_cannot_be_logged_are_counted_and_logging_continues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = started(tmp_path, part_rows=1, flush_s=3600)
    bad, good = entries(2, first=1)

    log.append(bad._replace(columns={**bad.columns, "member_months": np.array(["Anna Smith"])}))
    until(lambda: log.dropped_rows == 1)
    log.append(good)
    log.close(60)

    assert log.counts() == (0, 1, 1)
    assert logged(tmp_path) == ["p2"]
    assert "1 rows cannot be logged" in caplog.messages[0]
    assert "Anna" not in caplog.text


def test_log_lines_have_counts_and_no_personal_data(sink: FailingSink, caplog: pytest.LogCaptureFixture) -> None:
    sink.configure(down=True)
    log = started(sink, capacity_rows=2, flush_s=0.01)

    with caplog.at_level(logging.DEBUG):
        for entry in entries(3, first=1000):
            log.append(entry)
        until(lambda: "dropped so far" in caplog.text and log.failed_flushes > 0)
        log.close(0)

    assert "prediction log: 1 rows dropped so far, 2 wait" in caplog.messages
    assert f"prediction log: {sink.location}: the disk is full; 2 rows wait, next try in 0.01 s" in caplog.messages
    assert "prediction log: closed with 2 rows unwritten; they are dropped" in caplog.messages
    assert not re.search(r"[pc]100\d", caplog.text)


ROOT = Path(__file__).parents[2]


def test_a_kill_loses_at_most_the_last_flush_interval(tmp_path: Path) -> None:
    code = """if True:
        import sys, time
        sys.path[:0] = [".", "tests/support", "tests/serving"]
        from test_prediction_log import entries, started
        log = started(sys.argv[1], part_rows=100, flush_s=0.2)
        for number, entry in enumerate(entries(1_000_000)):
            log.append(entry)
            print(number, time.time(), flush=True)
            time.sleep(0.0005)
    """
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    until(lambda: len([*tmp_path.rglob("[!.]*.parquet")]) >= 3)
    process.send_signal(signal.SIGKILL)
    served = [line.split() for line in process.communicate()[0].splitlines() if line.count(".") == 1]

    found = logged(tmp_path)
    missing = [float(at) for number, at in served if f"p{number}" not in {*found}]
    assert found == named(range(len(found)))
    assert len(found) > 0
    # One interval, and ample time for a part to be written on a busy machine.
    assert not missing or missing[-1] - missing[0] < 0.2 + 5


def test_a_table_of_entries_has_the_log_columns_in_order() -> None:
    table = to_table(list(entries(3)))

    assert table.schema.names == prediction_schema().names
