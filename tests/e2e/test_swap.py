"""Another dataset needs `contract.py`, `features.py` and `data/raw/`, and nothing else: done here as docs/adopting.md says."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from project import Project, clone, replace_between

pytestmark = pytest.mark.slow

SWAP = Path(__file__).parent / "swap"

RAW = ("plan", "region", "price_cents", "days_since_login", "hours_watched", "titles_finished", "renews_itself", "is_shared")
DERIVED = ("price_per_hour", "hours_per_title", "is_idle")
MONTHS = pd.date_range("2026-01-31", periods=6, freq="ME")
PRICES = {"Free": 0, "Basic": 799, "Standard": 1199, "Premium": 1799, "Family": 2299}


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return streaming_accounts(accounts=3000, seed=11)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, raw: pd.DataFrame) -> Iterator[Project]:
    """A clone in which the pipeline ran on the shipped customers, then on the streaming service's contract, features and rows."""
    folder = tmp_path_factory.mktemp("swapped")
    project = clone(folder / "churn", folder / "home")
    project.run("dvc", "repro")
    replace_between("FEATURE_TTL = ", "def of_role", in_=project.folder / "src/churn/contract.py", by=SWAP / "tables.py")
    features = project.folder / "src/churn/features.py"
    replace_between("@feature(", "FEATURES: ", in_=features, by=SWAP / "derived.py")
    (project.folder / "data/raw/customers.csv").unlink()
    raw.to_csv(project.folder / "data/raw/accounts.csv", index=False)
    project.first_output = project.run("dvc", "repro")
    yield project
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def found(project: Project, raw: pd.DataFrame) -> dict[str, Any]:
    """What swap/probe.py finds in the project, with the online features of an account that has a row in every month."""
    output = project.run("python", str(SWAP / "probe.py"), account_of_many_months(raw))
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def streaming_accounts(accounts: int, seed: int) -> pd.DataFrame:
    """The raw table as the service would export it: accounts join over time, have a row a month, and none after they cancel."""
    rng = np.random.default_rng(seed)
    numbers = np.array([f"{each:07d}" for each in rng.permutation(10**6)[:accounts]])
    plan = rng.choice(list(PRICES), accounts, p=[0.15, 0.25, 0.3, 0.2, 0.1])
    region = rng.choice(["north", "south", "islands"], accounts, p=[0.5, 0.35, 0.15])
    renews = rng.random(accounts) < 0.7
    joined = rng.integers(0, 4, accounts)
    is_there = np.ones(accounts, dtype=bool)

    def month(index: int, end: pd.Timestamp) -> pd.DataFrame:
        who = np.flatnonzero(is_there & (joined <= index))
        n = len(who)
        idle = np.minimum(rng.exponential(8, n).astype(int), 120)
        watches = rng.random(n) > 0.12
        hours = np.where(watches, np.round(rng.gamma(2, 8, n), 1), np.nan)
        price = np.array([PRICES[each] for each in plan[who]])
        worth = price / np.maximum(np.nan_to_num(hours), 1)
        odds = -3.6 + 1.6 * ~renews[who] + 1.3 * ~watches + 0.09 * np.minimum(idle, 30) + 1.3 * (worth > 200)
        odds += 1.4 * ((plan[who] == "Free") & (idle > 10))
        leaves = rng.random(n) < 1 / (1 + np.exp(-1.25 * odds))
        is_there[who[leaves]] = False
        return pd.DataFrame(
            {
                "AccountNo": numbers[who],
                "MonthEnd": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "Plan": plan[who],
                "Region": region[who],
                "PriceCents": price,
                "DaysSinceLogin": idle,
                "HoursWatched": hours,
                "TitlesFinished": pd.array(np.where(watches, rng.poisson(np.nan_to_num(hours) / 3), -1), "Int64"),
                "AutoRenew": np.where(renews[who], "Y", "N"),
                "shared": np.where(rng.random(n) < 0.3, "true", "false"),
                "AgentNotes": "not in the contract",
                "cancelled_next_month": leaves.astype(int),
            }
        ).assign(TitlesFinished=lambda rows: rows.TitlesFinished.mask(~watches))

    rows = pd.concat([month(index, end) for index, end in enumerate(MONTHS)])
    return rows.sample(frac=1, random_state=seed)


def account_of_many_months(raw: pd.DataFrame) -> str:
    """An account that has watched in its last month, among those with the most rows."""
    months = raw.groupby("AccountNo").MonthEnd.transform("count")
    last = raw[(months == months.max()) & (raw.MonthEnd == raw.MonthEnd.max()) & raw.HoursWatched.notna()]
    return str(last.AccountNo.min())


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def test_the_project_with_another_contract_runs_its_own_code(project: Project, found: dict[str, Any]) -> None:
    assert "Running stage 'prepare'" in project.first_output
    assert Path(found["module"]) == project.folder / "src/churn/contract.py"


def test_features_are_those_of_the_new_contract_only(project: Project, found: dict[str, Any], raw: pd.DataFrame) -> None:
    assert tuple(found["features"]) == ("account_number", "as_of", *RAW, *DERIVED)
    assert found["features"]["titles_finished"] == "double"
    assert found["features"]["price_cents"] == "int64"
    assert len(pd.read_parquet(project.folder / "data/features/customers.parquet")) == len(raw)


def test_the_model_has_one_input_per_number_flag_and_category_value(found: dict[str, Any]) -> None:
    plans = tuple(f"plan={each}" for each in PRICES)
    regions = tuple(f"region={each}" for each in ("north", "south", "islands"))
    assert tuple(found["inputs"]) == (*plans, *regions, *RAW[2:], *DERIVED)
    assert found["onnx_shape"][1] == len(found["inputs"])


def test_every_label_is_joined_to_the_features_of_its_month(project: Project) -> None:
    features = pd.read_parquet(project.folder / "data/features/customers.parquet")
    labelled = pd.concat([pd.read_parquet(project.folder / f"data/prepared/{side}.parquet") for side in ("train", "test")])
    assert labelled.groupby("account_number").size().max() == len(MONTHS)

    frame = pd.read_parquet(project.folder / "data/frames/test.parquet")

    joined = frame.merge(features, on=["account_number", "as_of"], suffixes=("", "_true"), validate="one_to_one")
    assert len(joined) == len(frame) > 1000
    for name in ("days_since_login", "hours_watched", "titles_finished", "hours_per_title"):
        np.testing.assert_array_equal(joined[name], joined[f"{name}_true"])


def test_no_account_is_in_both_train_and_test(project: Project) -> None:
    train, test = (
        set(pd.read_parquet(project.folder / f"data/prepared/{side}.parquet").account_number) for side in ("train", "test")
    )

    assert not train & test
    assert 0.15 < len(test) / len(train | test) < 0.25


def test_the_online_store_has_the_latest_month_of_an_account(found: dict[str, Any], raw: pd.DataFrame) -> None:
    stored = found["online"]

    latest = raw[raw.AccountNo == stored["account_number"]].set_index("MonthEnd").sort_index().iloc[-1]
    assert stored["plan"] == latest.Plan
    assert stored["days_since_login"] == latest.DaysSinceLogin
    assert stored["hours_watched"] == latest.HoursWatched
    assert stored["titles_finished"] == latest.TitlesFinished
    assert stored["renews_itself"] is bool(latest.AutoRenew == "Y")
    assert stored["price_per_hour"] == pytest.approx(latest.PriceCents / max(latest.HoursWatched, 1))


def test_the_default_gate_promotes_the_version(project: Project) -> None:
    decision = json.loads((project.folder / "reports/evaluate/decision.json").read_text())
    measured = json.loads((project.folder / "metrics/evaluate.json").read_text())["test"]

    assert decision["promoted"], decision["reason"]
    assert 0.82 <= measured["roc_auc"] <= 0.88
    assert measured["log_loss"] <= 0.45
    header, version, first = project.run("churn", "models").splitlines()
    assert header.split()[:2] == ["version", "aliases"]
    assert version.split()[:3] == ["2", "candidate,", "production"]
    assert first.split()[0] == "1"


def test_a_champion_with_other_columns_is_not_compared(project: Project) -> None:
    decision = json.loads((project.folder / "reports/evaluate/decision.json").read_text())

    assert decision["reason"] == "passed every check; version 1 cannot be compared with it"


def test_the_model_card_describes_the_new_contract(project: Project) -> None:
    card = project.run("churn", "card", "2")

    assert "`cancelled` (Cancelled within the month after `as_of`)" in card
    assert "| plan=Family |" in card
    assert "| region=islands |" in card
    assert "member_months" not in card


def test_the_signature_has_the_contract_columns_and_accepts_nulls(found: dict[str, Any]) -> None:
    assert tuple(found["signature"]) == RAW
    assert found["signature"]["plan"] == ["string", True]
    assert found["signature"]["price_cents"] == ["long", True]
    assert found["signature"]["hours_watched"] == ["double", False]
    assert found["signature"]["titles_finished"] == ["double", False]
    assert found["signature"]["renews_itself"] == ["boolean", True]


def test_mlflow_reproduces_the_golden_prediction(found: dict[str, Any]) -> None:
    assert set(found["golden"]["customers"][0]) == set(RAW)
    assert found["golden_again"] == pytest.approx(found["golden"]["churn_probabilities"], abs=1e-6)


def test_rows_without_label_and_time_are_scored(project: Project, raw: pd.DataFrame) -> None:
    unlabelled = raw[raw.MonthEnd == raw.MonthEnd.max()].drop(columns=["cancelled_next_month", "MonthEnd", "AgentNotes"])
    unlabelled.to_csv(project.folder / "today.csv", index=False)

    project.run("churn", "score", "today.csv", "scores.csv")

    scored = list(rows_of(project.folder / "scores.csv"))
    assert [each["account_number"] for each in scored] == list(unlabelled.AccountNo)
    churners = raw.set_index(["AccountNo", "MonthEnd"]).cancelled_next_month.xs(raw.MonthEnd.max(), level="MonthEnd")
    probability = pd.Series({each["account_number"]: float(each["churn_probability"]) for each in scored})
    assert probability[churners[churners == 1].index].mean() > 2 * probability[churners[churners == 0].index].mean()


def test_a_value_outside_the_new_contract_is_refused(project: Project, raw: pd.DataFrame) -> None:
    raw.head(3).assign(Plan="Platinum").to_csv(project.folder / "wrong.csv", index=False)

    message = project.run("churn", "score", "wrong.csv", "none.csv", exit_code=1)

    assert "plan: expected one of Free, Basic, Standard, Premium, Family, got no such value in 3 of 3 rows" in message
    assert not (project.folder / "none.csv").exists()


def test_the_telco_simulator_refuses_another_contract_in_one_line(project: Project) -> None:
    message = project.run("python", "-m", "demo.simulate", "played", exit_code=1)

    assert message.splitlines()[-1].startswith("churn: contract.py: no column has_phone; simulate plays Telco's world only")
    assert "Traceback" not in message
