"""Records that are damaged or from the future are set aside by name, and the watcher continues."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churn.errors import MonitorError
from monitoring.policy import Kind
from monitoring.record_types import CHECKS, RETRAININGS
from monitoring.records import Records, open_records
from monitoring.watcher import Watcher
from s3_server import new_bucket, point_at, s3_api
from watching import HOUR, MINUTE, Workspace, exported, set_created

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 2, 13, tzinfo=UTC)
ONE = NOW
LABELS = {"rows": 0, "positives": 0}
NAME = "retrain-v1-20260302t120000z"
WINDOW = {"name": "short", "rows": 9, "start": "2026-03-02T11:00:00+00:00", "end": "2026-03-02T12:00:00+00:00"}
WINDOW |= {"verdict": "insufficient", "reason": "9 rows", "violations": [], "drift": None}
AT = {"at": "2026-03-02T12:00:00+00:00"}
CHECK = {
    **AT,
    **{"name": "20260302T120000Z-v1", "version": "1", "decision": "keep", "reason": "nothing moved", "retraining": None},
    **{"verdicts": {"short": "clean"}, "reasons": {"short": ""}, "on_since": {}, "windows": [WINDOW], "matured": LABELS},
    **{"performance": None, "promised_auc": {"window": None, "reference": 0.8}, "labels_since": LABELS},
    "newest_prediction": None,
}
GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "check": ("20260302T120000Z-v1", CHECK),
    "started": ("20260302T120000Z-1-started", {**AT, "kind": "started", "name": NAME, "version": "1", "reason": "drift"}),
    "ended": (
        "20260302T120000Z-2-ended",
        {"at": "2026-03-02T12:30:00+00:00", "kind": "ended", "name": NAME, "result": "failed", "reason": "so"},
    ),
    "reset": ("20260302T120000Z-3-reset", {**AT, "kind": "reset"}),
}


def altered(content: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**content, **changes}).encode()


def damages(content: dict[str, Any]) -> dict[str, bytes]:
    """Every damage of a record, by its name."""
    text = json.dumps(content).encode()
    return {
        "empty": b"",
        "truncated": text[: len(text) // 2],
        "two records": text + text,
        "null": b"null",
        "list": b"[" + text + b"]",
        "number": b"7",
        "not UTF-8": text.replace(b"2026", b"\xff\xfe26", 1),
        "NUL bytes": b"\0" * 4096,
        "deep": b'{"at":' + b"[" * 100_000,
        "huge": text + b" " * 2**20,
        "NaN": text.replace(b'"2026', b'NaN, "x": "2026', 1),
        "no time": json.dumps({key: value for key, value in content.items() if key != "at"}).encode(),
        "naive time": altered(content, at="2026-03-02T12:00:00"),
        "date": altered(content, at="2026-03-02"),
        "number as time": altered(content, at=1772452800),
        "number as text as time": altered(content, at="1772452800"),
        "time out of range": altered(content, at="9999-12-31T23:59:59-23:00"),
        "another time than its name": altered(content, at="2020-01-01T00:00:00+00:00"),
        "future": altered(content, at="2038-01-19T03:14:07+00:00"),
        "unknown format": altered(content, format=99),
        "format of another type": altered(content, format="1"),
    }


CASES = [
    pytest.param(kind, damage, id=f"{kind}-{damage}")
    for kind, (_, content) in GOOD.items()
    for damage in damages(content)
    # When an end was noted is not in its name.
    if (kind, damage) != ("ended", "another time than its name")
]
OF_CHECKS = {
    "a verdict that is not known": altered(CHECK, verdicts={"short": "splendid"}),
    "a signal that is not known": altered(CHECK, verdicts={"medium": "clean"}),
    "a name of another record": altered(CHECK, name="20260302T120000Z-v2"),
    "a retraining that is no name": altered(CHECK, retraining="; rm -rf"),
    "a number for a text": altered(CHECK, version=1),
    "windows that are none": altered(CHECK, windows=[1]),
    "an infinite figure": altered(CHECK, promised_auc={"window": 1e999, "reference": 0.8}),
    "a negative count": altered(CHECK, matured={"rows": -1, "positives": 0}),
}


def opened(kind: str, location: str) -> Records[Any]:
    return open_records(location, CHECKS if kind == "check" else RETRAININGS)


@pytest.mark.parametrize("kind", GOOD)
def test_a_valid_record_is_read(kind: str, tmp_path: Path) -> None:
    name, content = GOOD[kind]
    records = opened(kind, str(tmp_path))
    records.add(name, content)

    assert [record.at.isoformat() for record in records.since("", NOW)] == [content["at"]]
    assert records.set_aside() == 0


@pytest.mark.parametrize(("kind", "damage"), CASES)
def test_a_damaged_record_is_set_aside_by_name(kind: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, content = GOOD[kind]
    (tmp_path / f"{name}.json").write_bytes(damages(content)[damage])
    records = opened(kind, str(tmp_path))

    assert records.since("", NOW) == []

    assert records.get(name, NOW) is None
    assert (tmp_path / f"quarantine/{name}.json").read_bytes() == damages(content)[damage]
    assert records.set_aside() == 1
    (message,) = caplog.messages
    assert f"{tmp_path}/{name}.json" in message
    assert "\n" not in message
    assert records.add(name, content), "its name is free again"


@pytest.mark.parametrize("damage", OF_CHECKS)
def test_a_check_with_wrong_values_is_set_aside(damage: str, tmp_path: Path) -> None:
    name, _ = GOOD["check"]
    (tmp_path / f"{name}.json").write_bytes(OF_CHECKS[damage])

    assert opened("check", str(tmp_path)).since("", NOW) == []
    assert (tmp_path / f"quarantine/{name}.json").exists()


def test_a_folder_with_the_name_of_a_record_is_set_aside(tmp_path: Path) -> None:
    name, _ = GOOD["check"]
    (tmp_path / f"{name}.json").mkdir()

    assert opened("check", str(tmp_path)).since("", NOW) == []
    assert (tmp_path / f"quarantine/{name}.json").is_dir()


def test_quarantined_records_of_the_same_name_are_all_kept(tmp_path: Path) -> None:
    name, _ = GOOD["check"]
    records = opened("check", str(tmp_path))
    for content in (b"one", b"two"):
        (tmp_path / f"{name}.json").write_bytes(content)
        records.since("", NOW)

    assert sorted(path.read_bytes() for path in (tmp_path / "quarantine").iterdir()) == [b"one", b"two"]


def test_a_record_that_cannot_be_moved_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, _ = GOOD["check"]
    (tmp_path / f"{name}.json").write_bytes(b"")
    (tmp_path / "quarantine").write_text("a file is in the way")
    records = opened("check", str(tmp_path))

    for _ in range(2):
        assert records.get(name, NOW) is None

    assert len(caplog.messages) == 1
    assert records.skipped


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    with s3_api() as address:
        yield address


def test_a_damaged_object_is_set_aside_in_the_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(s3_server, monkeypatch)
    bucket, (name, content) = new_bucket(s3_server), GOOD["check"]
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    client.put_object(Bucket=bucket, Key=f"m/checks/{name}.json", Body=b"half")
    records = opened("check", f"s3://{bucket}/m/checks")

    assert records.since("", NOW) == []

    keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert [key.startswith(f"m/checks/quarantine/{name}-") for key in keys] == [True]
    assert records.set_aside() == 1
    assert records.add(name, content)
    assert len(records.since("", NOW)) == 1


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_mutated_record_is_either_read_or_set_aside(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(GOOD)))
    name, content = GOOD[kind]
    mutated = bytearray(json.dumps(content).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(mutated) - 1))
        mutated[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        mutated = mutated or bytearray(b" ")
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.json").write_bytes(bytes(mutated))
        records = opened(kind, folder)

        assert len(records.since("", NOW)) + records.set_aside() == 1


# The watcher


@pytest.mark.parametrize("folder", ["checks", "retrainings"])
@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\xff", b"[]", b'{"kind": "started"}', b'{"at": 1}', b"{}"])
def test_a_check_continues_if_a_record_is_damaged(brink: Workspace, folder: str, content: bytes) -> None:
    (brink.folder / "monitoring/retrainings").mkdir(exist_ok=True)
    bad = brink.folder / f"monitoring/{folder}/20260302T113000Z-bad.json"
    bad.write_bytes(content)

    decision = brink.check(ONE)

    assert decision
    assert decision.kind is Kind.RETRAIN
    assert not bad.exists()
    assert exported()["churn_monitor_records_set_aside"] == 1


def of_2038(folder: Path, kind: str) -> None:
    """A record that was written while the clock was wrong."""
    at = "2038-01-19T03:14:07+00:00"
    record = {
        "kind": kind,
        "at": at,
        "name": "retrain-v1-20380119t031407z",
        "version": "1",
        "reason": "drift",
        "result": "failed",
    }
    number = {"started": 1, "ended": 2, "reset": 3}[kind]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"20380119T031407Z-{number}-{kind}.json").write_text(json.dumps(record))


@pytest.mark.parametrize("kinds", [["started"], ["started", "ended"], ["ended"], ["reset"]], ids="-".join)
def test_records_from_the_future_do_not_block_retraining(brink: Workspace, kinds: list[str]) -> None:
    for kind in kinds:
        of_2038(brink.folder / "monitoring/retrainings", kind)

    decision = brink.check(ONE)

    assert decision
    assert decision.kind is Kind.RETRAIN
    assert len([*(brink.folder / "monitoring/retrainings/quarantine").iterdir()]) == len(kinds)


def test_a_check_record_from_the_future_does_not_replace_a_check(brink: Workspace) -> None:
    record = brink.checks()[0] | {"name": "20380119T030000Z-v1", "at": "2038-01-19T03:00:00+00:00"}
    record |= {"retraining": "retrain-v1-20380119t030000z", "decision": "retrain"}
    (brink.folder / "monitoring/checks/20380119T030000Z-v1.json").write_text(json.dumps(record))

    brink.check(ONE)

    assert brink.ended() == ["retrain-v1-20260302t130000z"]


def test_a_reset_sets_damaged_records_aside(brink: Workspace) -> None:
    of_2038(brink.folder / "monitoring/retrainings", "started")

    Watcher(brink.settings).reset(ONE)

    assert [each["kind"] for each in brink.retrainings()] == ["reset"]


def test_an_end_record_without_a_start_record_counts(brink: Workspace) -> None:
    brink.check(ONE)
    brink.ended()
    brink.check(ONE + HOUR)
    (brink.folder / "monitoring/retrainings/20260302T130000Z-1-started.json").write_bytes(b"")

    decision = brink.check(ONE + 2 * HOUR)

    assert decision
    assert "the last one started less than 72 h ago" in decision.reason


def test_records_of_a_late_check_are_not_from_the_future(brink: Workspace) -> None:
    brink.check(ONE + 50 * MINUTE)
    brink.ended()

    brink.check(ONE + HOUR + 50 * MINUTE)
    brink.check(ONE + 2 * HOUR)

    assert [each["kind"] for each in brink.retrainings()] == ["started", "ended"]
    assert exported()["churn_monitor_records_set_aside"] == 0


def test_a_clock_that_is_behind_is_an_error_and_no_record_is_set_aside(brink: Workspace) -> None:
    before = brink.checks()
    set_created(brink.folder / "mlflow.db", "1", ONE)

    with pytest.raises(MonitorError, match="correct the clock"):
        brink.check(ONE - timedelta(days=3))

    assert brink.checks() == before
    assert not (brink.folder / "monitoring/checks/quarantine").exists()
    brink.check(ONE + MINUTE)
