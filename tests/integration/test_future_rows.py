"""Rows whose label cannot be known yet: set aside by `ingest` and `prepare`, and no reason to stop the pipeline."""

import shutil
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from churn import paths
from churn.adapters import expectations, set_aside, sources
from churn.adapters.events import log as events
from churn.adapters.feast.store import Store
from churn.adapters.rows import arrays, typed
from churn.cli import main
from churn.contract import ENTITY, RAW_FEATURES, TIMESTAMP
from churn.domain.encoding import derive
from churn.errors import ContractError
from churn.params import load_params
from churn.pipeline import featurize, ingest, prepare
from churn.settings import Settings
from factory import rows
from serving.log_rows import Entry, to_table

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CUSTOMERS = ROOT / "data/raw/customers.csv"
FUTURE = pd.Timestamp("2099-01-01", tz="UTC")
NOW = datetime.now(UTC)
SETTINGS = Settings(events="data/events")
PARAMS = load_params(ROOT / "params.yaml")


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data/raw holds three hundred customers."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    paths.RAW.mkdir(parents=True)
    text(0, 300).to_csv(paths.RAW / "customers.csv", index=False)
    return paths.RAW


def text(first: int, last: int) -> pd.DataFrame:
    return pd.read_csv(CUSTOMERS, dtype=str, keep_default_na=False)[first:last]


def churn(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["churn", *words])
    try:
        main()
    except SystemExit as stopped:
        return int(str(stopped.code or 0))
    return 0


def prepared() -> pd.DataFrame:
    return pd.concat([pd.read_parquet(paths.TRAIN_ROWS), pd.read_parquet(paths.TEST_ROWS)])


def future_part(count: int, *, name: str = "ingested-000000000000.parquet", good: int = 0) -> None:
    """A part as an ingest without these checks wrote it: customers of the future, and some of the present."""
    times = [*[FUTURE] * count, *[pd.Timestamp("2026-02-01", tz="UTC")] * good]
    who = [*(f"F-{number}" for number in range(count)), *(f"G-{number}" for number in range(good))]
    rows(count + good, event_timestamp=times, customer_id=who).to_parquet(paths.RAW / name, index=False)


def log_labels(count: int) -> None:
    """Log a prediction of the first customers 45 days ago, and what became of them."""
    at = NOW.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=45)
    frame = typed(sources.read(str(CUSTOMERS)))[0].head(count)
    who = frame[ENTITY].tolist()
    scored = derive(arrays(pa.RecordBatch.from_pandas(frame[[each.name for each in RAW_FEATURES]], preserve_index=False)))
    ids = [f"p-{number}" for number in range(count)]
    entry = Entry(at.timestamp(), "1", 0.3, ids, who, scored, np.full(count, 0.5), [1.0] * count)
    sink = events.open_sink(SETTINGS.events)
    sink.write("predictions", to_table([entry]), "part")
    reports = [
        {ENTITY: name, "churned": bool(churned), "observed_at": at + timedelta(days=5 if churned else 31)}
        for name, churned in zip(who, frame["churned"], strict=True)
    ]
    sink.write("outcomes", events.outcomes(reports, received_at=at + timedelta(days=32)), "part")


# ingest


@pytest.mark.reported
def test_ingest_sets_future_rows_aside_and_appends_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = pd.concat([text(300, 302).assign(event_timestamp="2099-01-01"), text(302, 305).assign(event_timestamp="2026-02-01")])
    source.to_csv("source.csv", index=False)
    monkeypatch.setenv("CHURN_SOURCE", "source.csv")

    assert churn("ingest", monkeypatch=monkeypatch) == 0

    assert capsys.readouterr().out == "3 new rows\n"
    future = list(source.MemberNo[:2])
    assert f"set aside 2 of 5 rows (first: {', '.join(future)}; all in data/quarantine/ingest-immature.csv)" in caplog.text
    assert pd.read_csv("data/quarantine/ingest-immature.csv")[ENTITY].tolist() == future
    assert set_aside.reported("data/events")["ingest", set_aside.LABEL_NOT_KNOWN_YET] == 2
    assert not typed(sources.read("data/raw"))[0][ENTITY].isin(future).any()


def test_a_row_that_is_set_aside_can_lack_its_label() -> None:
    today = f"{NOW:%Y-%m-%d}"
    pd.concat(
        [text(300, 302).assign(event_timestamp=today, Cancelled=""), text(302, 305).assign(event_timestamp="2026-02-01")]
    ).to_csv("source.csv", index=False)

    assert ingest.run(Settings(source="source.csv")) == 3


def test_a_source_with_future_rows_only_is_no_error() -> None:
    text(300, 302).assign(event_timestamp="2099-01-01").to_csv("source.csv", index=False)

    assert ingest.run(Settings(source="source.csv")) == 0


def test_rows_set_aside_are_ingested_once_their_label_is_final() -> None:
    text(300, 302).assign(event_timestamp="2026-05-01").to_csv("source.csv", index=False)
    settings = Settings(source="source.csv")

    early, late = (ingest.from_source(settings, now=datetime(2026, 5, day, tzinfo=UTC), aside=Counter()) for day in (30, 31))

    assert (early, late) == (0, 2)


@pytest.mark.reported
def test_future_rows_in_data_raw_hide_no_final_label_of_the_log() -> None:
    future_part(2)
    log_labels(100)

    assert ingest.run(SETTINGS) == 100


def test_a_future_row_marked_as_from_the_log_hides_no_final_label() -> None:
    ingested = pd.DataFrame({ENTITY: ["a", "b"], TIMESTAMP: [pd.Timestamp("2026-01-05", tz="UTC"), FUTURE], "row_origin": "api"})

    found = ingest.watermark(ingested, now=datetime(2026, 6, 1, tzinfo=UTC), horizon=timedelta(days=30))

    assert found == datetime(2025, 11, 6, tzinfo=UTC)


def test_the_log_is_read_from_its_start_after_source_ingests_only() -> None:
    ingested = pd.DataFrame({ENTITY: ["a"], TIMESTAMP: [pd.Timestamp("2026-01-05", tz="UTC")], "row_origin": "source"})

    assert ingest.watermark(ingested, now=datetime(2026, 6, 1, tzinfo=UTC), horizon=timedelta(days=30)) is None


# prepare


@pytest.mark.reported
def test_prepare_skips_and_reports_a_few_future_rows(caplog: pytest.LogCaptureFixture) -> None:
    future_part(2)

    prepare.run(PARAMS, SETTINGS)

    assert len(prepared()) == 300
    assert prepared()[TIMESTAMP].max() < pd.Timestamp(NOW)
    assert "set aside data/raw: 2 of 302 rows (first: F-0, F-1; all in data/quarantine/prepare-immature.csv)" in caplog.text
    assert set_aside.reported("data/events")["prepare", set_aside.LABEL_NOT_KNOWN_YET] == 2


def test_prepare_fails_above_the_share_of_future_rows_in_one_line() -> None:
    future_part(4)

    with pytest.raises(ContractError, match=r"4 of 304 rows .*first: F-0, F-1, F-2.*ingested-000000000000\.parquet") as caught:
        prepare.run(PARAMS, SETTINGS)

    assert "\n" not in str(caught.value)
    assert not paths.TRAIN_ROWS.exists()


def test_deleting_the_named_part_and_ingesting_again_removes_future_rows() -> None:
    future_part(4, good=6)
    rows(10, customer_id=[*(f"F-{n}" for n in range(4)), *(f"G-{n}" for n in range(6))]).assign(
        event_timestamp=[*[FUTURE] * 4, *[pd.Timestamp("2026-02-01", tz="UTC")] * 6]
    ).to_parquet("crm.parquet", index=False)
    with pytest.raises(ContractError, match="delete the parts that have them") as caught:
        prepare.run(PARAMS, SETTINGS)

    for part in paths.RAW.glob("ingested-*.parquet"):
        assert part.name in str(caught.value)
        part.unlink()

    assert ingest.run(Settings(source="crm.parquet")) == 6
    prepare.run(PARAMS, SETTINGS)
    assert len(prepared()) == 306


def test_the_horizon_setting_defines_immature_rows() -> None:
    text(0, 300).assign(event_timestamp=f"{NOW - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}").to_csv(
        paths.RAW / "customers.csv", index=False
    )

    prepare.run(PARAMS, Settings(label_horizon_s=60))
    assert len(prepared()) == 300

    with pytest.raises(ContractError, match="300 of 300 rows"):
        prepare.run(PARAMS, Settings(label_horizon_s=7200))


def test_a_full_featurize_removes_future_rows_from_the_online_store() -> None:
    typical, customer = Settings(), text(0, 1).MemberNo.iloc[0]
    prepare.run(PARAMS, typical)
    frame = pd.read_parquet(paths.TRAIN_ROWS)
    later = frame[frame[ENTITY] == customer].assign(**{TIMESTAMP: FUTURE, "member_months": 99})
    pd.concat([frame, later], ignore_index=True).to_parquet(paths.TRAIN_ROWS, index=False)
    featurize.run(PARAMS, typical)
    assert Store(paths.FEATURES, typical).online([customer])["member_months"] == [99]

    prepare.run(PARAMS, typical)
    featurize.run(PARAMS, typical, full=True)

    stored = Store(paths.FEATURES, typical).online([customer])["member_months"]
    assert stored == frame.loc[frame[ENTITY] == customer, "member_months"].tolist()


def test_the_validation_report_has_no_future_row() -> None:
    future_part(2)

    mature = prepare.without_immature(sources.read(str(paths.RAW)), max_share=0.01, now=NOW, horizon=timedelta(days=30))

    assert len(expectations.check(mature).frame) == 300
