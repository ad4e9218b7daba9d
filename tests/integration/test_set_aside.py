"""Rows that a stage sets aside: which rows, their file, and the counts for the watcher."""

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
def test_a_row_is_immature_until_the_horizon_has_passed(age: timedelta, expected: bool) -> None:
    table = raw_table(rows(1, event_timestamp=pd.Timestamp(NOW - age)))

    assert is_immature(table, now=NOW, horizon=30 * DAY).tolist() == [expected]


def test_an_unreadable_time_is_not_immature() -> None:
    table = raw_table(rows(1)).set_column(1, TIMESTAMP, [["soon"]])

    assert is_immature(table, now=NOW, horizon=30 * DAY).tolist() == [False]


def test_rows_set_aside_are_written_and_removed_by_a_run_without_any(tmp_path: Path) -> None:
    path, table = tmp_path / "quarantine" / "rows.csv", raw_table(rows(5))

    message = keep(table, np.array([False, True, False, True, False]), path)

    assert message == f"2 of 5 rows (first: customer_id-00001, customer_id-00003; all in {path})"
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


def test_rows_set_aside_are_reported_until_a_run_without_any(place: str) -> None:
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
def test_a_damaged_record_is_skipped_and_logged(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report(str(tmp_path), "prepare", {LABEL_NOT_KNOWN_YET: 1})
    (tmp_path / set_aside.FOLDER / "ingest.json").write_bytes(content)

    assert {stage for stage, _ in reported(str(tmp_path))} == {"prepare"}
    assert "ingest.json" in caplog.text


def test_a_read_only_location_does_not_stop_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()

    report(str(tmp_path / "file"), "ingest", {LABEL_NOT_KNOWN_YET: 1})

    assert "the watcher cannot be told" in caplog.text
