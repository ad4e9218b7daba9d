"""Damaged parts of the event log are skipped by name; unreachable storage is an error."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn.adapters.events.log import Kind, Sink, open_sink, outcomes
from churn.adapters.events.parts import Damaged
from churn.adapters.rows import arrays
from churn.contract import ENTITY, LABEL, RAW_FEATURES
from churn.domain.encoding import derive
from churn.errors import EventsError
from churn.pipeline import ingest
from churn.settings import Settings
from event_parts import DAY, NOON, predictions
from factory import rows
from serving.log_rows import Entry, to_table

TIMES = {"predictions": "time", "outcomes": "received_at"}


def table_of(kind: Kind) -> pa.Table:
    if kind == "predictions":
        return predictions()
    reports = [{ENTITY: f"c{number}", LABEL: True, "observed_at": NOON} for number in range(3)]
    return outcomes(reports, received_at=NOON)


def whole(kind: Kind, table: pa.Table | None = None) -> bytes:
    stream = pa.BufferOutputStream()
    pq.write_table(table_of(kind) if table is None else table, stream)
    return bytes(stream.getvalue())


def damaged_pages(kind: Kind) -> bytes:
    """The first bytes of every column are nonsense; the footer is whole."""
    content = bytearray(whole(kind))
    about = pq.read_metadata(pa.BufferReader(bytes(content))).row_group(0)
    for number in range(about.num_columns):
        start = about.column(number).dictionary_page_offset or about.column(number).data_page_offset
        content[start : start + 8] = b"\xff" * 8
    return bytes(content)


def of_another_type(kind: Kind) -> bytes:
    table = table_of(kind)
    index = table.column_names.index(TIMES[kind])
    return whole(kind, table.set_column(index, TIMES[kind], table[TIMES[kind]].cast(pa.string())))


def of_another_day(kind: Kind) -> bytes:
    table = table_of(kind)
    index = table.column_names.index(TIMES[kind])
    times = [NOON, NOON, NOON + DAY]
    return whole(kind, table.set_column(index, TIMES[kind], pa.array(times, pa.timestamp("us", "UTC"))))


def without_a_time(kind: Kind) -> bytes:
    table = table_of(kind)
    index = table.column_names.index(TIMES[kind])
    return whole(kind, table.set_column(index, TIMES[kind], pa.array([NOON, NOON, None], pa.timestamp("us", "UTC"))))


def not_utf8(kind: Kind) -> bytes:
    table = table_of(kind)
    index = table.column_names.index("prediction_id")
    bad = pa.array([b"\xff\xfe", b"\xff", b"p"], pa.binary())
    names = pa.StringArray.from_buffers(3, bad.buffers()[1], bad.buffers()[2])
    return whole(kind, table.set_column(index, "prediction_id", names))


DAMAGES: dict[str, Callable[[Kind], bytes]] = {
    "empty": lambda kind: b"",
    "truncated": lambda kind: whole(kind)[:-20],
    "half": lambda kind: whole(kind)[: len(whole(kind)) // 2],
    "pages": damaged_pages,
    "CSV": lambda kind: b"prediction_id,time\np1,2026-03-01T12:00:00Z\n",
    "another schema": lambda kind: whole(kind, pa.table({"a": [1, 2], "b": ["x", "y"]})),
    "another type": of_another_type,
    "another day": of_another_day,
    "no time": without_a_time,
    "not UTF-8": not_utf8,
}


@pytest.fixture(params=["folder", "s3"])
def sink(request: pytest.FixtureRequest, tmp_path: Path, found: list[Damaged]) -> Sink:
    """A log that collects reports of damaged parts in `found`."""
    if request.param == "folder":
        location = str(tmp_path / "events")
    else:
        location = f"s3://log-{os.urandom(4).hex()}/prefix"
        client = boto3.client("s3", endpoint_url=request.getfixturevalue("s3"))
        client.create_bucket(Bucket=location.split("/")[2])
    return open_sink(location, on_damaged=found.append)


@pytest.fixture
def found() -> list[Damaged]:
    return []


def put(sink: Sink, kind: Kind, name: str, content: bytes) -> str:
    """Write the bytes as a part; returns the place that messages name."""
    path = f"{sink.root}/{kind}/date={NOON.date()}/{name}.parquet"
    sink.filesystem.create_dir(path.rpartition("/")[0])
    with sink.filesystem.open_output_stream(path) as stream:
        stream.write(content)
    return sink.reader.shown(path)


@pytest.mark.parametrize("kind", ["predictions", "outcomes"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_skipped_by_name_and_the_others_are_read(
    sink: Sink, kind: Kind, damage: str, found: list[Damaged]
) -> None:
    sink.write(kind, table_of(kind), "good")
    place = put(sink, kind, "bad", DAMAGES[damage](kind))

    assert sink.read(kind).num_rows == 3

    assert {each.place for each in found} == {place}
    assert all(each.reason and "\n" not in each.reason for each in found)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_sample_skips_a_damaged_part_by_name(sink: Sink, damage: str, found: list[Damaged]) -> None:
    sink.write("predictions", predictions(), "good")
    place = put(sink, "predictions", "bad", DAMAGES[damage]("predictions"))

    sample = sink.sample(since=NOON - DAY, until=NOON + DAY, version="x", columns=["prediction_id"], rows=10, seed=0)

    assert (sample.total, sample.rows.num_rows) == (3, 3)
    assert {each.place for each in found} == {place}


def test_a_folder_with_the_name_of_a_part_is_reported(tmp_path: Path, found: list[Damaged]) -> None:
    sink = open_sink(tmp_path, on_damaged=found.append)
    folder = Path(sink.write("predictions", predictions(), "good")).with_name("bad.parquet")
    folder.mkdir()

    assert sink.read("predictions").num_rows == 3
    assert [each.place for each in found] == [str(folder)]


def test_a_damaged_row_group_loses_only_its_rows(tmp_path: Path, found: list[Damaged]) -> None:
    sink = open_sink(tmp_path, on_damaged=found.append)
    folder = Path(sink.write("predictions", predictions(), "part")).parent
    pq.write_table(predictions(9), folder / "part.parquet", row_group_size=3)
    content = bytearray((folder / "part.parquet").read_bytes())
    column = pq.read_metadata(folder / "part.parquet").row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 8] = b"\xff" * 8
    (folder / "part.parquet").write_bytes(bytes(content))

    assert sink.read("predictions")["prediction_id"].to_pylist() == ["p0", "p1", "p2", "p6", "p7", "p8"]
    assert len(found) == 1


def test_a_damaged_part_is_logged_once_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = open_sink(tmp_path)
    place = put(sink, "predictions", "bad", b"")

    for _ in range(3):
        sink.read("predictions")

    (message,) = caplog.messages
    assert message.startswith(f"{place}: skipped")


def test_integers_of_an_older_contract_are_read_as_floats(tmp_path: Path, found: list[Damaged]) -> None:
    sink = open_sink(tmp_path, on_damaged=found.append)
    table = predictions()
    index = table.column_names.index("monthly_fee")
    older = table.set_column(index, "monthly_fee", pa.array([7, 7, 7], pa.int64()))
    put(sink, "predictions", "older", whole("predictions", older))

    assert sink.read("predictions")["monthly_fee"].to_pylist() == [7.0] * 3
    assert found == []


@pytest.mark.parametrize("kind", ["predictions", "outcomes"])
def test_ingest_skips_a_damaged_part_by_name(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = open_sink("data/events")
    customers = [f"c{number}" for number in range(4)]
    frame = rows(4)
    scored = derive(arrays(pa.RecordBatch.from_pandas(frame[[each.name for each in RAW_FEATURES]], preserve_index=False)))
    entry = Entry(NOON.timestamp(), "1", 0.3, customers, customers, scored, np.full(4, 0.5), [1.0] * 4)
    sink.write("predictions", to_table([entry]), "good")
    reports = [{ENTITY: name, LABEL: name < "c2", "observed_at": NOON + 31 * DAY} for name in customers]
    sink.write("outcomes", outcomes(reports, received_at=NOON + 31 * DAY), "good")
    place = put(sink, kind, "bad", whole(kind)[:-20])

    assert ingest.from_log(Settings(events="data/events", max_unknown_share=1), now=NOON + 40 * DAY, aside=Counter()) == 4

    assert any(message.startswith(f"{place}: skipped") for message in caplog.messages)


@pytest.mark.reported
def test_a_file_named_like_a_day_is_skipped_by_name(tmp_path: Path, found: list[Damaged]) -> None:
    sink = open_sink(tmp_path, on_damaged=found.append)
    sink.write("predictions", predictions(), "part")
    (tmp_path / "predictions" / "date=2020-01-01").write_text("")

    assert len(sink.read("predictions")) == len(predictions())

    assert [damaged.place for damaged in found] == [f"{tmp_path}/predictions/date=2020-01-01"]


def test_storage_that_fails_during_a_read_is_an_error(tmp_path: Path, found: list[Damaged]) -> None:
    sink = open_sink(tmp_path, on_damaged=found.append)
    sink.write("predictions", predictions(), "part")

    with pytest.raises(EventsError, match="the disk is gone"):
        Sink(sink.location, Failing(sink.filesystem), sink.root, found.append).read("predictions")

    assert found == []


class Failing:
    """A filesystem that lists, and then cannot read."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def open_input_stream(self, path: str) -> Any:
        raise OSError("the disk is gone")
