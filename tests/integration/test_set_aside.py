"""Rows that a stage sets aside: which, their file, and what the watcher reads of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.adapters import set_aside
from churn.adapters.set_aside import LABEL_NOT_KNOWN_YET, is_immature, keep, report, reported
from churn.contract import TIMESTAMP
from factory import raw_table, rows

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("age", "expected"),
    [(30 * DAY, False), (30 * DAY - timedelta(seconds=1), True), (0 * DAY, True), (-73 * 365 * DAY, True)],
)
def test_a_row_is_immature_until_the_horizon_after_its_time_is_over(age: timedelta, expected: bool) -> None:
    table = raw_table(rows(1, event_timestamp=pd.Timestamp(NOW - age)))

    assert is_immature(table, now=NOW, horizon=30 * DAY).tolist() == [expected]


def test_a_time_that_cannot_be_read_is_not_immature() -> None:
    table = raw_table(rows(1)).set_column(1, TIMESTAMP, [["soon"]])

    assert is_immature(table, now=NOW, horizon=30 * DAY).tolist() == [False]


def test_kept_rows_are_named_and_their_file_goes_with_the_next_run_that_has_none(tmp_path: Path) -> None:
    path, table = tmp_path / "quarantine" / "rows.csv", raw_table(rows(5))

    said = keep(table, np.array([False, True, False, True, False]), path)

    assert said == f"2 of 5 rows (first: customer_id-00001, customer_id-00003; all in {path})"
    assert pd.read_csv(path).customer_id.tolist() == ["customer_id-00001", "customer_id-00003"]
    assert keep(table, np.zeros(5, dtype=bool), path) == ""
    assert not path.exists()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "events")
    request.getfixturevalue("s3")
    from churn.adapters.object_storage import make_bucket

    make_bucket("set-aside-events")
    return f"s3://set-aside-events/{tmp_path.name}"


def test_what_was_set_aside_is_reported_until_a_run_sets_nothing_aside(place: str) -> None:
    report(place, "ingest", {LABEL_NOT_KNOWN_YET: 0})
    assert reported(place) == {}, "nothing is written before there is something to say"

    report(place, "ingest", {LABEL_NOT_KNOWN_YET: 2})
    report(place, "prepare", {LABEL_NOT_KNOWN_YET: 1})
    assert {key: count for key, count in reported(place).items() if count} == {
        ("ingest", LABEL_NOT_KNOWN_YET): 2,
        ("prepare", LABEL_NOT_KNOWN_YET): 1,
    }

    report(place, "ingest", {})
    assert reported(place)["ingest", LABEL_NOT_KNOWN_YET] == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"label not known yet": "many"}', b"\xff"])
def test_a_damaged_record_is_left_out_by_name(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report(str(tmp_path), "prepare", {LABEL_NOT_KNOWN_YET: 1})
    (tmp_path / set_aside.FOLDER / "ingest.json").write_bytes(content)

    assert {stage for stage, _ in reported(str(tmp_path))} == {"prepare"}
    assert "ingest.json" in caplog.text


def test_a_location_that_cannot_be_written_to_does_not_stop_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()

    report(str(tmp_path / "file"), "ingest", {LABEL_NOT_KNOWN_YET: 1})

    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert str(tmp_path / "file") in warning.getMessage()
