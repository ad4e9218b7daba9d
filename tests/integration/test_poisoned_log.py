"""Labels that a client of the API invents: how many are ingested, and how the gate treats a model trained on them."""

import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from churn import paths
from churn.adapters import set_aside, sources
from churn.adapters.events import log as events
from churn.adapters.feast.store import Store
from churn.adapters.origins import API, ORIGIN, SOURCE
from churn.adapters.rows import arrays, newest, typed
from churn.contract import ENTITY, LABEL, RAW_FEATURES, TIMESTAMP
from churn.domain.encoding import derive, encode
from churn.domain.metrics import Probabilities
from churn.params import load_params
from churn.pipeline import featurize, ingest
from churn.pipeline.evaluate import Evaluation, evaluate, on_source_rows
from churn.pipeline.prepare import split
from churn.settings import Settings
from serving.prediction_log import Entry, to_table

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
SETTINGS = Settings(events="data/events")
START = datetime(2026, 3, 10, 12, tzinfo=UTC)
LATER = START + timedelta(days=31)
INVENTED = 8000


@cache
def shipped() -> pd.DataFrame:
    frame, _ = typed(sources.read(str(ROOT / "data/raw/customers.csv")))
    return frame


def invented(count: int = INVENTED) -> pd.DataFrame:
    """Customers who do not exist, like real ones, with the opposite of their labels."""
    frame = shipped().sample(count, replace=True, random_state=1).reset_index(drop=True)
    frame[ENTITY] = [f"invented-{number}" for number in range(count)]
    frame[LABEL] = ~frame[LABEL].astype(bool)
    return frame


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data/raw holds the first thousand customers, from a source."""
    monkeypatch.chdir(tmp_path)
    paths.RAW.mkdir(parents=True)
    shipped().head(1000).to_parquet(paths.RAW / "customers.parquet", index=False)
    return paths.RAW


def log_predictions(frame: pd.DataFrame, name: str, *, at: datetime = START) -> list[str]:
    """Log a prediction of each row; returns their ids."""
    plain = pa.RecordBatch.from_pandas(frame[[each.name for each in RAW_FEATURES]], preserve_index=False)
    who, ids = frame[ENTITY].tolist(), [f"{name}-{number}" for number in range(len(frame))]
    entry = Entry(at.timestamp(), "1", 0.3, ids, who, derive(arrays(plain)), np.full(len(frame), 0.5), [1.0] * len(frame))
    events.open_sink(SETTINGS.events).write("predictions", to_table([entry]), name)
    return ids


def log_labels(frame: pd.DataFrame, name: str, *, at: datetime = START) -> None:
    """Log a prediction of each row, and the row's label as what became of the customer."""
    ids = log_predictions(frame, name, at=at)
    seen = at + timedelta(days=30)
    reports = [
        {"prediction_id": key, LABEL: bool(left), "observed_at": seen} for key, left in zip(ids, frame[LABEL], strict=True)
    ]
    events.open_sink(SETTINGS.events).write("outcomes", events.outcomes(reports, received_at=seen), name)


def from_log(settings: Settings = SETTINGS, *, now: datetime = LATER) -> tuple[int | None, int]:
    """How many rows came into data/raw, and how many were set aside."""
    aside: Counter[str] = Counter()
    return ingest.from_log(settings, now=now, aside=aside), aside[set_aside.UNKNOWN_CUSTOMER]


def taken() -> list[str]:
    return [name for part in paths.RAW.glob("ingested-*.parquet") for name in pd.read_parquet(part)[ENTITY]]


# The share of unknown customers


@pytest.mark.reported
def test_an_increment_of_invented_customers_only_is_set_aside(raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_labels(invented(), "poison")

    assert from_log() == (0, INVENTED)
    assert "set aside 8000 of 8000 rows (first: invented-" in caplog.text
    assert len(pd.read_csv(paths.QUARANTINE / "ingest-unknown.csv")) == INVENTED
    assert not list(raw.glob("ingested-*.parquet"))


def test_unknown_customers_are_at_most_20_percent_of_an_increment(raw: Path) -> None:
    log_labels(shipped().head(400), "known")
    log_labels(invented(), "poison")

    assert from_log() == (500, INVENTED - 100)
    assert sum(name.startswith("invented") for name in taken()) == 100


def test_a_second_ingest_appends_no_more_unknown_customers(raw: Path) -> None:
    log_labels(shipped().head(400), "known")
    log_labels(invented(), "poison")
    from_log()

    assert from_log() == (0, INVENTED - 100)


def test_customers_from_the_api_only_stay_unknown(raw: Path) -> None:
    log_labels(shipped().head(400), "known")
    log_labels(invented(100), "poison")
    assert from_log() == (500, 0)

    log_labels(invented(100), "again", at=LATER)

    assert from_log(now=LATER + timedelta(days=31)) == (0, 100)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 400), (0.5, 800), (1.0, 400 + INVENTED)])
def test_the_share_of_unknown_customers_is_a_setting(share: float, expected: int, raw: Path) -> None:
    log_labels(shipped().head(400), "known")
    log_labels(invented(), "poison")

    assert from_log(Settings(events="data/events", max_unknown_share=share))[0] == expected


def test_a_customer_ingested_from_a_source_later_becomes_known(raw: Path) -> None:
    newcomers = shipped().tail(50)
    log_labels(newcomers, "newcomers")
    assert from_log() == (0, 50)

    newcomers.assign(**{TIMESTAMP: pd.Timestamp("2026-01-15", tz="UTC")}).to_parquet("crm.parquet", index=False)
    ingest.from_source(Settings(source="crm.parquet"), now=LATER, aside=Counter())

    assert from_log() == (50, 0)


def test_a_customer_in_the_online_store_is_known(raw: Path) -> None:
    newcomers = shipped().tail(50)
    featurize.write([newcomers], paths.FEATURES)
    Store(paths.FEATURES, SETTINGS).materialise()
    log_labels(newcomers, "newcomers")

    assert from_log() == (50, 0)


@pytest.mark.parametrize(("is_there", "expected"), [(True, (0, 100)), (False, (500, 100))], ids=["part", "no part"])
def test_online_store_rows_written_from_the_api_do_not_make_customers_known(
    is_there: bool, expected: tuple[int, int], raw: Path
) -> None:
    log_labels(shipped().head(400), "known")
    log_labels(invented(100), "poison")
    from_log()
    (part,) = raw.glob("ingested-*.parquet")
    featurize.write([pd.read_parquet(part)], paths.FEATURES)
    Store(paths.FEATURES, SETTINGS).materialise()
    if not is_there:
        part.unlink()

    log_labels(invented(100), "again", at=LATER)

    assert from_log(now=LATER + timedelta(days=31)) == expected


def test_an_unlabelled_prediction_in_the_online_store_is_no_known_customer(raw: Path) -> None:
    log_labels(invented(50), "labelled")
    log_predictions(invented(50), "another", at=START + timedelta(days=1))
    featurize.write([invented(50).assign(**{TIMESTAMP: pd.Timestamp(START + timedelta(days=1))})], paths.FEATURES)
    Store(paths.FEATURES, SETTINGS).materialise()

    assert from_log(now=LATER + timedelta(days=1)) == (0, 50)


def test_an_api_customer_written_online_by_another_pipeline_is_known(raw: Path) -> None:
    log_labels(pd.concat([shipped().head(400), invented(100)], ignore_index=True), "first")
    assert from_log() == (500, 0)
    crm = invented(100).assign(**{TIMESTAMP: pd.Timestamp("2026-04-02", tz="UTC")})
    featurize.write([crm], paths.FEATURES)
    Store(paths.FEATURES, SETTINGS).materialise()

    log_labels(invented(100), "again", at=LATER)

    assert from_log(now=LATER + timedelta(days=31)) == (100, 0)


# The gate


def featured(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    return pd.DataFrame(derive(frame)).assign(**{ORIGIN: origin})


def fitted(frame: pd.DataFrame) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0)
    return model.fit(encode(frame), frame[LABEL].to_numpy(dtype=bool))


def chosen(model: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with labels drawn from the opposite of the model's probabilities: as well calibrated as the model."""
    opposite = 1 - model.predict_proba(encode(frame))[:, 1]
    return frame.assign(**{LABEL: np.random.default_rng(5).random(len(frame)) < opposite})


@cache
def attack() -> tuple[pd.DataFrame, dict[str, Probabilities]]:
    """The test rows, of which the newest are the attacker's, and what champion and poisoned candidate give them."""
    learned, tested = split(featured(shipped(), SOURCE), PARAMS.prepare.test_fraction)
    champion = fitted(learned)
    later = invented().assign(**{TIMESTAMP: pd.Timestamp(START)})
    poison, newest_rows = split(chosen(champion, featured(later, API)), PARAMS.prepare.test_fraction)
    candidate = fitted(poison)
    rows = pd.concat([tested, newest_rows], ignore_index=True)
    score = {"candidate": candidate, "baseline": candidate, "champion": champion}
    return rows, {name: model.predict_proba(encode(rows))[:, 1] for name, model in score.items()}


def evaluated(rows: pd.DataFrame, probabilities: dict[str, Probabilities], **options: Any) -> Evaluation:
    """As the stage does: on the newest rows, and on those of a source."""
    cut = newest(rows[TIMESTAMP], PARAMS.evaluate.newest_rows)
    source = on_source_rows(rows, probabilities, PARAMS.evaluate)
    given = {"source": source} | options
    return evaluate(
        rows.iloc[cut].reset_index(drop=True), {n: p[cut] for n, p in probabilities.items()}, PARAMS.evaluate, **given
    )


@pytest.mark.reported
def test_a_model_of_invented_labels_is_refused_on_source_rows() -> None:
    rows, probabilities = attack()
    assert set(rows.iloc[newest(rows[TIMESTAMP], PARAMS.evaluate.newest_rows)][ORIGIN]) == {API}

    failed = [check.name for check in evaluated(rows, probabilities).failed]

    assert failed == ["roc_auc on source rows", "roc_auc − champion's on source rows"]
    assert evaluated(rows, probabilities, source=None).failed == [], "nothing else refuses it"


def test_the_champion_compared_with_itself_on_source_rows_passes() -> None:
    rows, probabilities = attack()
    same = probabilities | {"candidate": probabilities["champion"]}

    source = on_source_rows(rows, same, PARAMS.evaluate)

    assert source
    assert source.roc_auc == source.champion_roc_auc
    assert source.roc_auc > 0.8


def test_source_rows_only_are_not_evaluated_twice() -> None:
    rows, probabilities = attack()
    is_source = (rows[ORIGIN] == SOURCE).to_numpy()

    assert on_source_rows(rows[is_source], {name: p[is_source] for name, p in probabilities.items()}, PARAMS.evaluate) is None


@pytest.mark.parametrize("kept", [0, 20])
def test_too_few_source_rows_give_a_warning_and_no_check(kept: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    rows, probabilities = attack()
    some = (rows[ORIGIN] == API).to_numpy() | (np.arange(len(rows)) < kept)

    found = evaluated(rows[some].reset_index(drop=True), {name: p[some] for name, p in probabilities.items()})

    assert not [check for check in found.checks if "source rows" in check.name]
    assert "the candidate is evaluated on the others alone" in caplog.text
