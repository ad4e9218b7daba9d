"""`churn ingest` and `churn retrain` from the prediction log: every labelled prediction is appended once."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn import paths
from churn.adapters import sources
from churn.adapters.events import log as events
from churn.adapters.events.log import Sink, open_sink
from churn.adapters.rows import arrays, typed
from churn.contract import ENTITY, LABEL, RAW_FEATURES, TIMESTAMP
from churn.domain.encoding import derive
from churn.errors import ConfigError, RetrainError
from churn.params import load_params
from churn.pipeline import ingest, log_labels, retrain
from churn.pipeline.prepare import is_test, split
from churn.settings import Settings
from factory import rows
from serving.log_rows import Entry, to_table

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RAW = [each.name for each in RAW_FEATURES]
DAY = timedelta(days=1)
HORIZON = 30 * DAY
SNAPSHOT = pd.Timestamp("2024-01-01", tz="UTC")
START = datetime(2024, 3, 10, 12, tzinfo=UTC)
"""When predictions are made: the middle of one of the label's periods."""
LATER = START + HORIZON
SETTINGS = Settings(events="data/events")


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data/raw holds fifty customers of a source, at an earlier time than the log; ten are the log's."""
    monkeypatch.chdir(tmp_path)
    paths.RAW.mkdir(parents=True)
    known = rows(50, seed=9, event_timestamp=SNAPSHOT, customer_id=[*(f"known-{number}" for number in range(40)), *names(10)])
    known.to_parquet(paths.RAW / "customers.parquet", index=False)
    return paths.RAW


@pytest.fixture
def log() -> Sink:
    return open_sink(SETTINGS.events)


def names(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


def predict(log: Sink, customers: Iterable[str | None], *, at: datetime = START, part: str = "part", **columns: Any) -> list[str]:
    """Log a prediction of each customer as the server does; returns their ids."""
    who = [*customers]
    frame = rows(len(who), **columns)
    scored = derive(arrays(pa.RecordBatch.from_pandas(frame[RAW], preserve_index=False)))
    ids = [f"{part}-{number}" for number in range(len(who))]
    entry = Entry(at.timestamp(), "1", 0.3, ids, who, scored, np.full(len(who), 0.5), [1.0] * len(who))
    log.write("predictions", to_table([entry]), part)
    return ids


def report(log: Sink, labels: dict[str, bool], *, observed: datetime = LATER, part: str = "part", by: str = ENTITY) -> None:
    """Log what was seen of customers, or of predictions: True for one who left."""
    reports = [{by: who, LABEL: left, "observed_at": observed} for who, left in labels.items()]
    log.write("outcomes", events.outcomes(reports, received_at=observed), part)


def half_left(who: Iterable[str]) -> dict[str, bool]:
    return {each: number % 2 == 0 for number, each in enumerate(who)}


def from_log(now: datetime = LATER + DAY) -> int | None:
    return ingest.from_log(SETTINGS, now=now, aside=Counter())


def parts(raw: Path) -> list[Path]:
    return sorted(raw.glob("ingested-*.parquet"))


def appended(raw: Path) -> pd.DataFrame:
    """The rows that were appended, by customer and time."""
    read = [pd.read_parquet(part) for part in parts(raw)]
    return pd.concat(read).sort_values([ENTITY, TIMESTAMP]).reset_index(drop=True)


# What is appended


def test_predictions_with_a_final_label_are_appended_unchanged(log: Sink, raw: Path) -> None:
    predict(log, names(6), seed=3, member_months=[0, 1, 2, 3, 4, 5])
    report(log, half_left(names(6)), observed=START + 5 * DAY)
    report(log, {"c1": False, "c3": False, "c5": False}, part="later")

    assert from_log() == 6

    found, expected = appended(raw), rows(6, seed=3, member_months=[0, 1, 2, 3, 4, 5])
    pd.testing.assert_frame_equal(found[RAW], expected[RAW], check_dtype=False, check_categorical=False)
    assert found[ENTITY].tolist() == names(6)
    assert found[TIMESTAMP].tolist() == [START] * 6
    assert found[LABEL].tolist() == [True, False] * 3


def test_appended_rows_are_read_with_existing_rows(log: Sink, raw: Path) -> None:
    predict(log, names(6))
    report(log, half_left(names(6)))

    from_log()

    frame, unreadable = typed(sources.read(str(raw)))
    assert unreadable == {}
    assert len(frame) == 56
    assert not frame.duplicated([ENTITY, TIMESTAMP]).any()


def test_a_configured_log_is_ingested_before_the_pipeline(log: Sink, raw: Path) -> None:
    predict(log, names(6))
    report(log, half_left(names(6)))

    assert ingest.named(Settings()) == 0, "without a log, the committed rows stay as they are"
    assert parts(raw) == []
    assert ingest.named(SETTINGS) == 6
    assert ingest.named(SETTINGS) == 0


def test_an_empty_configured_log_is_no_error(raw: Path) -> None:
    assert ingest.named(SETTINGS) == 0


def test_a_source_with_newer_rows_does_not_hide_the_log(log: Sink, raw: Path, tmp_path: Path) -> None:
    predict(log, names(6))
    report(log, half_left(names(6)))
    source = tmp_path / "source.parquet"
    rows(10, event_timestamp=LATER + 365 * DAY, customer_id=[f"new-{number}" for number in range(10)]).to_parquet(
        source, index=False
    )

    for read in (ingest.named, ingest.run):
        for part in parts(raw):
            part.unlink()
        assert read(Settings(events="data/events", source=str(source))) == 16


def test_a_log_of_an_earlier_contract_is_no_error(log: Sink, raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    predict(log, names(6), monthly_fee=-1.0)
    report(log, half_left(names(6)))
    source = tmp_path / "source.parquet"
    rows(10, event_timestamp=LATER, customer_id=[f"new-{number}" for number in range(10)]).to_parquet(source, index=False)

    assert ingest.named(Settings(events="data/events", source=str(source))) == 10
    assert "set aside 6 of 6 rows" in caplog.text


def test_an_empty_log_setting_ingests_nothing(raw: Path) -> None:
    assert ingest.named(Settings(events="")) == 0


def test_a_second_ingest_of_the_log_appends_nothing(log: Sink, raw: Path) -> None:
    predict(log, names(6))
    report(log, half_left(names(6)))
    from_log()
    before = {part: part.read_bytes() for part in parts(raw)}

    assert from_log() == 0
    assert from_log(LATER + 365 * DAY) == 0
    assert {part: part.read_bytes() for part in parts(raw)} == before


def test_newly_final_labels_are_appended_in_a_new_part(log: Sink, raw: Path) -> None:
    predict(log, names(6))
    report(log, half_left(names(4)))
    assert from_log() == 4

    report(log, {"c4": True, "c5": False}, part="later", observed=LATER + DAY)

    assert from_log(LATER + 2 * DAY) == 2
    assert len(parts(raw)) == 2
    assert appended(raw)[ENTITY].tolist() == names(6)


def test_a_label_that_is_not_final_is_never_appended(log: Sink, raw: Path) -> None:
    predict(log, names(6))
    report(log, half_left(names(6)), observed=START + DAY)

    assert from_log(LATER - DAY) == 0
    assert parts(raw) == []


def test_churned_labels_are_final_at_the_end_of_the_horizon(log: Sink, raw: Path) -> None:
    predict(log, names(6))
    predict(log, names(6), part="late", at=START + 5 * DAY)
    report(log, half_left(names(6)), observed=LATER)

    assert from_log(LATER + DAY) == 6
    assert appended(raw)[TIMESTAMP].max() < START + DAY


def test_an_outcome_by_prediction_id_labels_the_prediction(log: Sink, raw: Path) -> None:
    ids = predict(log, names(4))
    report(log, half_left(ids), by="prediction_id")

    assert from_log() == 4
    assert appended(raw)[LABEL].tolist() == [True, False, True, False]


def test_a_prediction_without_a_customer_is_not_appended(log: Sink, raw: Path) -> None:
    ids = predict(log, ["c0", None, "c2", None])
    report(log, half_left(ids) | {ids[2]: False}, by="prediction_id")

    assert from_log() == 2
    assert appended(raw)[ENTITY].tolist() == ["c0", "c2"]


def test_a_customer_counts_once_per_horizon_by_the_first_prediction(log: Sink, raw: Path) -> None:
    for day in range(5):
        predict(log, names(4), at=START + day * DAY, part=f"day-{day}")
    report(log, half_left(names(4)), observed=START + 10 * DAY)
    report(log, {"c1": False, "c3": False}, observed=LATER + 9 * DAY, part="later")

    assert from_log(LATER + 10 * DAY) == 4
    assert appended(raw)[TIMESTAMP].max() < START + DAY


@pytest.mark.parametrize("at_once", [1, 1000])
def test_labels_do_not_depend_on_the_batch_size(
    at_once: int, log: Sink, raw: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_labels, "LABELLED_AT_ONCE", at_once)
    for day in range(3):
        ids = predict(log, names(4), at=START + day * DAY, part=f"day-{day}")
    report(log, half_left(names(3)), observed=LATER + 3 * DAY)
    report(log, {ids[3]: True}, observed=LATER, part="of the last day", by="prediction_id")
    log.write("outcomes", events.outcomes([{ENTITY: "c3", LABEL: True, "observed_at": LATER + DAY}], received_at=LATER), "future")

    assert from_log(LATER + 4 * DAY) == 4
    assert [moment.day for moment in appended(raw).set_index(ENTITY)[TIMESTAMP].sort_index()] == [10, 10, 10, 12]
    assert len([record for record in caplog.records if "observed after they were received" in record.getMessage()]) == 1


def test_predictions_without_an_outcome_are_not_kept_in_memory(log: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[str] = []
    read = Sink.read

    def counted(self: Sink, kind: events.Kind, **options: Any) -> pa.Table:
        table = read(self, kind, **options)
        collected.extend(table[ENTITY].to_pylist() if kind == "predictions" else [])
        return table

    predict(log, names(100))
    report(log, half_left(names(3)))
    monkeypatch.setattr(Sink, "read", counted)

    assert from_log() == 3
    assert {*collected} == {"c0", "c1", "c2"}


def test_a_retained_customer_is_appended_once_per_horizon(log: Sink, raw: Path) -> None:
    for month in range(3):
        predict(log, names(4), at=START + month * HORIZON, part=f"month-{month}")
    report(log, dict.fromkeys(names(4), False), observed=START + 3 * HORIZON)
    report(log, dict.fromkeys(names(2), True), observed=START + 3 * HORIZON - DAY, part="churned")

    assert from_log(START + 3 * HORIZON + DAY) == 12
    found = appended(raw)
    assert found.groupby(ENTITY).size().tolist() == [3] * 4
    assert found[found[LABEL]][TIMESTAMP].min() > START + 2 * HORIZON - DAY


def test_a_later_run_appends_no_second_prediction_of_a_horizon(log: Sink) -> None:
    predict(log, names(4))
    report(log, half_left(names(4)))
    assert from_log() == 4

    predict(log, names(4), at=START + 2 * DAY, part="second")
    report(log, half_left(names(4)), observed=LATER + 3 * DAY, part="second")

    assert from_log(LATER + 4 * DAY) == 0


def test_a_customer_in_data_raw_of_the_same_horizon_is_not_appended(log: Sink, raw: Path) -> None:
    frame = rows(4, event_timestamp=pd.Timestamp(START + DAY), customer_id=["c0", "c1", "x0", "x1"])
    frame.to_parquet(raw / "crm.parquet", index=False)
    predict(log, names(4))
    report(log, {"c0": True, "c1": True, "c2": True, "c3": False})

    assert from_log() == 2
    assert appended(raw)[ENTITY].tolist() == ["c2", "c3"]


def test_outcomes_two_horizons_before_the_newest_log_row_are_skipped(log: Sink, raw: Path) -> None:
    predict(log, names(4), at=START + 3 * HORIZON)
    report(log, half_left(names(4)), observed=START + 4 * HORIZON)
    assert from_log(START + 5 * HORIZON) == 4
    predict(log, names(8)[4:], part="early")
    report(log, half_left(names(8)[4:]), part="early")

    assert from_log(START + 5 * HORIZON) == 0


def test_a_source_newer_than_the_log_hides_no_label(log: Sink, raw: Path) -> None:
    rows(4, event_timestamp=pd.Timestamp(START + 3 * HORIZON)).to_parquet(raw / "crm.parquet", index=False)
    predict(log, names(4))
    report(log, half_left(names(4)))

    assert from_log(START + 4 * HORIZON) == 4


def test_an_empty_data_raw_is_filled(log: Sink, raw: Path) -> None:
    (raw / "customers.parquet").unlink()
    predict(log, names(4))
    report(log, half_left(names(4)))

    assert from_log() == 0, "no customer is known"
    assert ingest.from_log(SETTINGS.model_copy(update={"max_unknown_share": 1.0}), now=LATER + DAY, aside=Counter()) == 4
    assert from_log() == 0


@pytest.mark.parametrize("left", [True, False], ids=["left", "stayed"])
def test_log_rows_of_one_class_are_appended(left: bool, log: Sink, raw: Path) -> None:
    predict(log, names(3))
    report(log, dict.fromkeys(names(3), left))

    assert from_log() == 3
    assert appended(raw)[LABEL].tolist() == [left] * 3


def test_a_part_has_its_source_and_time_of_ingestion(log: Sink, raw: Path) -> None:
    predict(log, names(4))
    report(log, half_left(names(4)))
    before = datetime.now(UTC).replace(microsecond=0)

    from_log()

    (part,) = parts(raw)
    provenance = pq.read_schema(part).metadata
    assert provenance[b"churn.source"] == b"data/events (predictions that became labelled)"
    assert before <= datetime.fromisoformat(provenance[b"churn.ingested_at"].decode()) <= datetime.now(UTC)


def test_every_row_of_a_customer_is_on_the_same_side_of_the_split(log: Sink, raw: Path) -> None:
    fraction = load_params(ROOT / "params.yaml").prepare.test_fraction
    known = [f"known-{number}" for number in range(40)]
    aside = {customer for customer in known if is_test(customer, fraction)}
    predict(log, known)
    report(log, half_left(known))

    from_log()

    train, test = split(typed(sources.read(str(raw)))[0], fraction)
    assert aside
    assert set(test[ENTITY]) & {*known} == aside
    assert set(train[ENTITY]) & {*known} == {*known} - aside
    assert (test[test[ENTITY].isin(known)].groupby(ENTITY).size() == 2).all()


# What is refused


def test_invalid_log_rows_are_set_aside_and_the_others_appended(log: Sink, raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    predict(log, names(8), monthly_fee=[20.0] * 6 + [-1.0, -2.0])
    report(log, half_left(names(8)))

    assert from_log() == 6

    assert any("set aside 2 of 8 rows (first: c6, c7" in message and "monthly_fee" in message for message in caplog.messages)
    assert pd.read_csv(paths.QUARANTINE / "ingest-log.csv")[ENTITY].tolist() == ["c6", "c7"]


@pytest.mark.reported
def test_a_row_that_breaks_a_rule_for_most_rows_is_set_aside_alone(log: Sink) -> None:
    predict(log, names(8), member_months=10, monthly_fee=20.0, total_fees=[200.0] * 7 + [900_000.0])
    report(log, half_left(names(8)))

    assert from_log() == 7


def test_rows_set_aside_are_appended_once_they_are_valid(log: Sink) -> None:
    predict(log, names(4), monthly_fee=[20.0, 20.0, 20.0, -1.0])
    report(log, half_left(names(4)))
    assert from_log() == 3

    predict(log, names(4), monthly_fee=20.0)

    assert from_log() == 1


def test_an_empty_log_without_a_source_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^ingest: CHURN_SOURCE is not set, and data/events holds no predictions: .*$"):
        ingest.run(SETTINGS)


def test_immature_predictions_are_not_reported_as_missing(log: Sink, raw: Path) -> None:
    predict(log, names(4), at=datetime.now(UTC).replace(hour=0, minute=0, second=0))

    assert ingest.run(SETTINGS) == 0

    (raw / "customers.parquet").unlink()
    assert ingest.run(SETTINGS) == 0


def test_a_source_is_ingested_with_an_empty_log(raw: Path, tmp_path: Path) -> None:
    rows(4, customer_id=names(4)).to_parquet(tmp_path / "crm.parquet")

    assert ingest.run(Settings(events="data/events", source=str(tmp_path / "crm.parquet"))) == 4


def test_the_source_and_the_log_are_both_ingested(log: Sink, raw: Path, tmp_path: Path) -> None:
    rows(4, customer_id=["x0", "x1", "x2", "x3"], event_timestamp=SNAPSHOT).to_parquet(tmp_path / "crm.parquet")
    both = Settings(events="data/events", source=str(tmp_path / "crm.parquet"))
    predict(log, names(4))
    report(log, half_left(names(4)))

    assert ingest.run(both) == 8
    assert ingest.run(both) == 0
    origins = {pq.read_schema(part).metadata[b"churn.source"].decode() for part in parts(raw)}
    assert origins == {str(tmp_path / "crm.parquet"), "data/events (predictions that became labelled)"}


def test_a_row_of_the_source_is_not_appended_from_the_log(log: Sink, raw: Path, tmp_path: Path) -> None:
    rows(4, customer_id=names(4), event_timestamp=pd.Timestamp(START)).to_parquet(tmp_path / "crm.parquet")
    predict(log, names(4))
    report(log, half_left(names(4)))

    assert ingest.run(Settings(events="data/events", source=str(tmp_path / "crm.parquet"))) == 4


# Retraining


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHURN_")}
    program = Path(sys.executable).with_name("churn")
    return subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False)


def test_retraining_without_new_rows_changes_nothing(log: Sink, raw: Path, tmp_path: Path) -> None:
    predict(log, names(4))
    report(log, half_left(names(4)))
    from_log()
    before = sorted(tmp_path.rglob("*"))

    done = command("retrain")

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "no new labelled rows, nothing was trained: wait until outcomes are reported and final, or run `dvc repro`\n"
    )
    assert not [line for line in done.stderr.splitlines() if line.startswith(("churn:", "Traceback"))]
    assert sorted(tmp_path.rglob("*")) == before


def test_retraining_without_predictions_and_source_fails_in_one_line() -> None:
    done = command("retrain")

    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("read ")]
    assert line.startswith("churn: ingest: CHURN_SOURCE is not set, and data/events holds no predictions")


@pytest.mark.parametrize(("promoted", "word"), [("true", "promoted"), ("false", "not promoted: failed")])
def test_a_retraining_prints_the_gate_decision(
    promoted: str, word: str, log: Sink, dvc: Callable[[str], None], tmp_path: Path
) -> None:
    predict(log, names(4))
    report(log, half_left(names(4)))
    decision = f'{{"promoted": {promoted}, "outcome": "failed", "reason": "so it is"}}'
    dvc(f"echo \"$@\" > arguments; mkdir -p reports/evaluate; echo '{decision}' > reports/evaluate/decision.json")

    assert retrain.run(SETTINGS) == f"4 new rows; {word}"
    assert (tmp_path / "arguments").read_text() == "repro\n"


def test_a_pipeline_that_fails_is_refused_with_its_exit_code(log: Sink, raw: Path, dvc: Callable[[str], None]) -> None:
    predict(log, names(4))
    report(log, half_left(names(4)))
    dvc("exit 7")

    with pytest.raises(RetrainError, match=r"^`dvc repro` ended with exit code 7; its messages are above$"):
        retrain.run(SETTINGS)

    assert len(appended(raw)) == 4
