"""The prediction log and the outcomes, on a real folder and a real S3 API."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn.adapters.events import log as events
from churn.adapters.events import sampling
from churn.adapters.events.log import Sink, open_sink, outcome_schema, outcomes, prediction_schema
from churn.adapters.events.sampling import Sample
from churn.contract import ENTITY, LABEL
from churn.errors import EventsError
from churn.features import FEATURES
from event_parts import DAY, NOON, predictions


def customer_outcome(customer: str, churned: bool = True, *, observed: datetime = NOON) -> dict[str, Any]:
    return {ENTITY: customer, LABEL: churned, "observed_at": observed}


def test_the_log_schema_has_every_feature_with_its_type() -> None:
    schema = prediction_schema()

    assert {each.name for each in FEATURES} < {*schema.names}
    types = {
        name: str(schema.field(name).type)
        for name in ("time", "member_months", "total_fees", "is_student", "commitment", "extras")
    }
    assert types == {
        "time": "timestamp[us, tz=UTC]",
        "member_months": "int64",
        "total_fees": "double",
        "is_student": "bool",
        "commitment": "string",
        "extras": "int64",
    }


def test_a_feature_with_the_name_of_a_column_of_the_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FEATURES", (*FEATURES, FEATURES[0].__class__("time", FEATURES[0].kind, "")))

    with pytest.raises(ValueError, match=r"contract\.py: time: the prediction log has columns of its own with that name"):
        prediction_schema.__wrapped__()


def test_written_rows_are_read_back(sink: Sink) -> None:
    table = predictions()

    place = sink.write("predictions", table, "part")

    assert place == f"{sink.location}/predictions/date=2026-03-01/part.parquet"
    assert sink.read("predictions").equals(table)


def test_dictionary_categories_and_any_column_order_are_accepted(sink: Sink) -> None:
    table = predictions()
    index = table.column_names.index("commitment")
    shuffled = table.set_column(index, "commitment", table["commitment"].dictionary_encode()).select(table.column_names[::-1])

    sink.write("predictions", shuffled, "part")

    assert sink.read("predictions").equals(table)


def test_a_part_of_the_same_name_replaces_the_first(sink: Sink) -> None:
    sink.write("predictions", predictions(5), "part")

    sink.write("predictions", predictions(2), "part")

    assert sink.read("predictions").num_rows == 2


def test_a_read_includes_since_and_excludes_until(sink: Sink) -> None:
    for day in range(4):
        sink.write("predictions", predictions(at=NOON + day * DAY), f"part-{day}")

    read = sink.read("predictions", since=NOON + DAY + timedelta(seconds=1), until=NOON + 3 * DAY + timedelta(seconds=1))

    one, two, three = (NOON + day * DAY for day in (1, 2, 3))
    seconds = [timedelta(seconds=each) for each in range(3)]
    assert read["time"].to_pylist() == [one + seconds[1], one + seconds[2], *(two + each for each in seconds), three]


def test_folders_of_other_days_are_not_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = open_sink(tmp_path)
    sink.write("predictions", predictions(), "part")
    (tmp_path / "predictions/date=2026-02-28").mkdir()
    (tmp_path / "predictions/date=2026-02-28/broken.parquet").write_text("not Parquet")

    assert sink.read("predictions", since=NOON - timedelta(hours=12)).num_rows == 3
    assert caplog.text == ""


def test_a_time_without_a_zone_is_utc(sink: Sink) -> None:
    sink.write("predictions", predictions(), "part")

    assert sink.read("predictions", since=datetime(2026, 3, 1, 12, 0, 2)).num_rows == 1


def test_a_time_of_another_zone_is_converted(sink: Sink) -> None:
    sink.write("predictions", predictions(), "part")

    west = NOON.astimezone(timezone(-timedelta(hours=13)))
    assert west.date() == date(2026, 2, 28)
    assert sink.read("predictions", until=west + timedelta(seconds=1)).num_rows == 1


def test_only_the_requested_columns_are_read_in_order(sink: Sink) -> None:
    sink.write("predictions", predictions(), "part")

    read = sink.read("predictions", columns=["churn_probability", "prediction_id"], since=NOON)

    assert read.column_names == ["churn_probability", "prediction_id"]


def test_a_column_missing_in_an_older_part_is_null(tmp_path: Path) -> None:
    folder = tmp_path / "predictions/date=2026-03-01"
    folder.mkdir(parents=True)
    pq.write_table(predictions().drop_columns(["extras"]).append_column("gone", [[1, 2, 3]]), folder / "old.parquet")

    read = open_sink(tmp_path).read("predictions")

    assert read["extras"].null_count == 3
    assert read.schema == prediction_schema()


def test_an_empty_log_gives_no_rows(sink: Sink) -> None:
    assert sink.read("predictions").schema == prediction_schema()
    assert sink.read("outcomes", columns=[LABEL]).num_rows == 0


def test_hidden_unfinished_and_foreign_files_are_skipped(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    folder = Path(sink.write("predictions", predictions(), "part")).parent
    for name in (".part.parquet.123", ".hidden.parquet", "_temporary.parquet", "README.md"):
        (folder / name).write_text("no Parquet")
    (tmp_path / "predictions/backup").mkdir()
    (tmp_path / "predictions/backup/part.parquet").write_text("no Parquet")

    assert sink.read("predictions").num_rows == 3


def test_a_killed_write_leaves_no_readable_part(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    sink.write("predictions", predictions(), "part")
    code = """if True:
        import os, signal, sys
        from churn.adapters.events import log as events
        sys.path.insert(0, "tests/support")
        from event_parts import predictions
        # The kill hits after the bytes are there and before they have their name.
        os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
        events.open_sink(sys.argv[1]).write("predictions", predictions(100), "part")
    """

    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parents[2], check=False)

    assert done.returncode == -9
    assert len([*(tmp_path / "predictions/date=2026-03-01").iterdir()]) == 2
    assert sink.read("predictions").num_rows == 3


def test_an_incomplete_object_is_not_listed(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="half")
    sink = open_sink("s3://half")
    stream = sink.filesystem.open_output_stream("half/predictions/date=2026-03-01/part.parquet")

    stream.write(b"half a part")

    assert sink.reader.listing("predictions", NOON.date()).live == ()
    stream.close()
    assert len(sink.reader.listing("predictions", NOON.date()).live) == 1


def sampled(sink: Sink, rows: int, *, seed: int = 0, **changes: Any) -> Sample:
    options: dict[str, Any] = {"since": NOON - DAY, "until": NOON + DAY, "version": "x", "columns": ["prediction_id"]} | changes
    return sink.sample(rows=rows, seed=seed, **options)


def ids(sample: Sample) -> list[str]:
    return [str(each) for each in sample.rows["prediction_id"].to_pylist()]


def test_rows_are_sampled_uniformly(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    for part, (first, last) in enumerate([(0, 5), (5, 35), (35, 60)]):
        named = [f"p{number:02d}" for number in range(first, last)]
        sink.write("predictions", predictions(len(named), prediction_id=named), f"part-{part}")
    seeds = 600

    drawn = Counter(each for seed in range(seeds) for each in ids(sampled(sink, 15, seed=seed)))

    assert sum(drawn.values()) == 15 * seeds
    # A row is drawn 150 times, with a standard deviation of 10.6.
    assert len(drawn) == 60
    assert min(drawn.values()) > 150 - 4 * 10.6
    assert max(drawn.values()) < 150 + 4 * 10.6
    # Chi-square with 59 degrees of freedom, whose variance a draw without replacement shrinks: 99.9 % are below 99.
    assert sum((count - 150) ** 2 / (150 * 0.75) for count in drawn.values()) < 99


def test_a_sample_has_unique_rows_in_log_order(sink: Sink) -> None:
    for day in range(2):
        named = [f"{day}-{number:03d}" for number in range(200)]
        sink.write("predictions", predictions(200, at=NOON - DAY + day * DAY, prediction_id=named), "part")

    found = ids(sampled(sink, 50))

    assert len(found) == 50
    assert found == sorted({*found})


def test_a_sample_has_the_total_and_the_newest_time(sink: Sink) -> None:
    for hour in (3, 1, 2):
        sink.write("predictions", predictions(100, at=NOON + timedelta(hours=hour)), f"part-{hour}")

    found = sampled(sink, 10)

    assert (found.rows.num_rows, found.total) == (10, 300)
    assert found.newest == NOON + timedelta(hours=3, seconds=99)


@pytest.mark.parametrize("rows", [8, 9, 1000])
def test_a_sample_larger_than_the_log_is_the_log(rows: int, sink: Sink) -> None:
    for day in range(2):
        sink.write(
            "predictions", predictions(4, at=NOON - DAY + day * DAY, prediction_id=[f"{day}-{row}" for row in "1320"]), "part"
        )

    found = sampled(sink, rows, columns=["time", "prediction_id"])

    assert found.rows.equals(sink.read("predictions", columns=["time", "prediction_id"]))
    assert found.total == 8


def test_only_the_versions_rows_are_sampled(sink: Sink) -> None:
    sink.write("predictions", predictions(5, model_version=["1", "2", "1", "11", None]), "part")

    found = sampled(sink, 10, version="1")

    assert ids(found) == ["p0", "p2"]
    assert (found.total, found.newest) == (2, NOON + timedelta(seconds=2))


def test_a_sample_includes_since_and_excludes_until(sink: Sink) -> None:
    for day in range(3):
        sink.write("predictions", predictions(at=NOON + day * DAY, prediction_id=[f"{day}-{row}" for row in range(3)]), "part")

    second = timedelta(seconds=1)
    found = sampled(sink, 10, since=NOON + second, until=NOON + 2 * DAY + second)

    assert ids(found) == ["0-1", "0-2", "1-0", "1-1", "1-2", "2-0"]
    assert (found.total, found.newest) == (6, NOON + 2 * DAY)


def test_a_sample_does_not_open_folders_of_other_days(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = open_sink(tmp_path)
    sink.write("predictions", predictions(), "part")
    (tmp_path / "predictions/date=2026-02-27").mkdir()
    (tmp_path / "predictions/date=2026-02-27/broken.parquet").write_text("not Parquet")

    assert sampled(sink, 10).total == 3
    assert caplog.text == ""


def test_the_sample_depends_on_the_seed_only(sink: Sink) -> None:
    sink.write("predictions", predictions(1000), "part")

    first, again, other = (sampled(sink, 20, seed=seed) for seed in (1, 1, 2))

    assert first.rows.equals(again.rows)
    assert not first.rows.equals(other.rows)


def test_a_sample_has_the_requested_columns_in_order(sink: Sink) -> None:
    sink.write("predictions", predictions(), "part")

    assert sampled(sink, 2, columns=["churn_probability", "prediction_id"]).rows.column_names == [
        "churn_probability",
        "prediction_id",
    ]


def test_a_sample_of_no_rows_is_empty(sink: Sink) -> None:
    nowhere = sampled(sink, 10)
    sink.write("predictions", predictions(), "part")
    of_nobody = sampled(sink, 10, version="another")

    for found in (nowhere, of_nobody):
        assert (found.rows.num_rows, found.total, found.newest) == (0, 0, None)
        assert found.rows.column_names == ["prediction_id"]


@pytest.mark.parametrize("table", [predictions(at=NOON + timedelta(hours=12, seconds=-1)), predictions(0)], ids=["two", "none"])
def test_a_part_is_of_one_day(table: pa.Table, sink: Sink) -> None:
    with pytest.raises(ValueError, match="a part has the rows of one day"):
        sink.write("predictions", table, "part")


def test_outcomes_are_sorted_by_time_of_receipt(sink: Sink) -> None:
    by_prediction = {"prediction_id": "p1", LABEL: False, "observed_at": NOON}
    sink.write("outcomes", outcomes([customer_outcome("c1"), by_prediction], received_at=NOON + DAY), "part")
    sink.write("outcomes", outcomes([customer_outcome("c2")], received_at=NOON), "another")

    read = sink.read("outcomes")

    assert read.schema == outcome_schema()
    assert read[ENTITY].to_pylist() == ["c2", "c1", None]
    assert read["prediction_id"].to_pylist() == [None, None, "p1"]
    assert read[LABEL].to_pylist() == [True, True, False]


def test_a_repeated_outcome_counts_once_at_its_last_receipt(sink: Sink) -> None:
    sink.write(
        "outcomes", outcomes([customer_outcome("c1"), customer_outcome("c2"), customer_outcome("c1")], received_at=NOON), "part"
    )
    sink.write(
        "outcomes", outcomes([customer_outcome("c1"), customer_outcome("c2", churned=False)], received_at=NOON + DAY), "part"
    )

    read = sink.read("outcomes", columns=[ENTITY, "received_at"])

    assert read.to_pylist() == [
        {ENTITY: "c2", "received_at": NOON},
        {ENTITY: "c1", "received_at": NOON + DAY},
        {ENTITY: "c2", "received_at": NOON + DAY},
    ]


@pytest.mark.parametrize(
    "report", [{LABEL: True, "observed_at": NOON}, customer_outcome("c1") | {"prediction_id": "p1"}], ids=["neither", "both"]
)
def test_an_outcome_has_either_a_customer_or_a_prediction(report: dict[str, Any]) -> None:
    with pytest.raises(EventsError, match="exactly one must be given"):
        outcomes([report], received_at=NOON)


def refusal(action: Callable[[], object]) -> str:
    """The one line with which the log refuses."""
    with pytest.raises(EventsError) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_read_only_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file")

    message = refusal(lambda: open_sink(tmp_path / "events").write("predictions", predictions(), "part"))

    assert message.startswith(f"{tmp_path}/events/predictions/date=2026-03-01/part.parquet: [Errno 20] Not a directory")
    assert message.endswith("check the address, the credentials, the permissions and the space")


def test_a_missing_bucket_is_refused_in_one_line(s3: str) -> None:
    sink = open_sink("s3://absent/events")

    assert "NO_SUCH_BUCKET" in refusal(lambda: sink.write("predictions", predictions(), "part"))
    assert refusal(lambda: sink.read("predictions")) == "s3://absent: there is no such bucket; correct the location, or create it"


def test_unreachable_storage_is_refused_in_one_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    sink = open_sink("s3://log/events")

    assert "NETWORK_CONNECTION" in refusal(lambda: sink.write("predictions", predictions(), "part"))
    assert "NETWORK_CONNECTION" in refusal(lambda: sink.read("predictions"))


@pytest.mark.parametrize(
    ("location", "reason"),
    [("gs://log/events", "neither a folder nor s3"), ("", "neither a folder nor s3"), ("s3://log", "AWS_ACCESS_KEY_ID not set")],
)
def test_an_invalid_location_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch, location: str, reason: str) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    with pytest.raises(EventsError, match=reason):
        open_sink(location)


def test_the_log_needs_no_training_package(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from datetime import UTC, datetime
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("pandas", "sklearn", "mlflow", "feast", "sqlalchemy", "yaml"):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())
        from churn.adapters.events import log as events
        from churn.contract import ENTITY, LABEL
        sink, now = events.open_sink(sys.argv[1]), datetime.now(UTC)
        sink.write("outcomes", events.outcomes([{ENTITY: "c1", LABEL: True, "observed_at": now}], received_at=now), "part")
        print(sink.read("outcomes", since=now).num_rows)
    """

    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"


def test_a_large_log_is_sampled_with_its_newest_part_and_total_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLED_PARTS", 50)
    log = open_sink(tmp_path)
    for number in range(200):
        log.write("predictions", predictions(3, at=NOON + timedelta(minutes=number)), f"{number:04d}")

    found = sampled(log, 1000, columns=["time"])

    assert found.total == 600
    assert found.rows.num_rows == 150
    assert found.newest == NOON + timedelta(minutes=199, seconds=2)


def test_parts_are_sampled_uniformly_besides_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLED_PARTS", 5)
    log = open_sink(tmp_path)
    for number in range(11):
        log.write("predictions", predictions(1, at=NOON, prediction_id=[str(number)]), f"{number:04d}")

    seen = Counter(name for seed in range(300) for name in sampled(log, 100, seed=seed).rows["prediction_id"].to_pylist())

    assert seen.pop("10") == 300, "the newest"
    assert set(seen) == {str(number) for number in range(10)}
    assert max(seen.values()) < 2 * min(seen.values())
