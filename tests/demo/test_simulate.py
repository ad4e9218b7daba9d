import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from churn.adapters.rows import typed
from churn.adapters.sources import read
from churn.contract import BY_NAME, COLUMNS, RULES, broken
from churn.domain.encoding import derive, encode
from churn.errors import ConfigError, ContractError, SourceError
from churn.features import FEATURES
from demo import world
from demo.reality import Reality, Scenario, learn
from demo.simulate import simulate
from demo.world import World

ROOT = Path(__file__).parents[2]


REAL = 7043
MONTHS = 6
FIRST = 2
"""The month in which a scenario begins in these tests."""
LONGEST = 72
"""Months: the file's longest tenure, which reads as that or more."""


@pytest.fixture(scope="module")
def reality() -> Reality:
    return learn()


@pytest.fixture(scope="module")
def real() -> pd.DataFrame:
    frame, _ = typed(read("data/raw/customers.csv"))
    return frame


@pytest.fixture(scope="module")
def played(reality: Reality) -> Callable[[Scenario], list[pd.DataFrame]]:
    """Six months of the real customers under a scenario, each with its true hazard as an index level."""
    known: dict[Scenario, list[pd.DataFrame]] = {}

    def play(scenario: Scenario) -> list[pd.DataFrame]:
        if scenario not in known:
            company = World(REAL, 7, scenario, FIRST, reality=reality)
            known[scenario] = [company.step().to_pandas().set_index(company.hazard) for _ in range(MONTHS)]
        return known[scenario]

    return play


def psi(reference: Any, current: Any) -> float:
    """Population stability index over the reference's values, or its deciles if there are more than ten."""
    reference, current = (pd.Series(np.asarray(values)) for values in (reference, current))
    if reference.dtype.kind not in "OU" and reference.nunique() > 10:
        edges = [-np.inf, *np.unique(reference.quantile(np.arange(0.1, 1, 0.1))), np.inf]
        reference, current = (pd.cut(values.fillna(0), edges).astype(str) for values in (reference, current))
    shares = pd.DataFrame({"p": reference.value_counts(normalize=True), "q": current.value_counts(normalize=True)})
    shares = shares.fillna(0).clip(lower=1e-4)
    return float(((shares.q - shares.p) * np.log(shares.q / shares.p)).sum())


def drift(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, float]:
    before, after = (derive({str(name): frame[name] for name in frame}) for frame in (reference, current))
    return {each.name: psi(before[each.name], after[each.name]) for each in FEATURES}


def matrix(frame: pd.DataFrame) -> npt.NDArray[np.float32]:
    return encode(derive({str(name): frame[name].to_numpy() for name in frame}))


def trained_on(frame: pd.DataFrame) -> Callable[[pd.DataFrame], float]:
    """A model of those rows, as its AUC on other rows."""
    model = GradientBoostingClassifier(random_state=0, subsample=0.5).fit(matrix(frame), frame.churned)
    return lambda other: float(roc_auc_score(other.churned, model.predict_proba(matrix(other))[:, 1]))


def test_rows_depend_on_the_seed_only(reality: Reality) -> None:
    twins = [World(300, 1, reality=reality) for _ in range(2)]
    other = World(300, 2, reality=reality)

    left, right, different = ([company.step() for _ in range(3)] for company in (*twins, other))

    assert left == right
    assert left != different


def test_an_earlier_month_does_not_change_with_the_next(reality: Reality) -> None:
    company = World(300, 1, reality=reality)
    rows = company.step()
    before = rows.to_pandas()

    company.step()

    pd.testing.assert_frame_equal(rows.to_pandas(), before)


@pytest.mark.parametrize("scenario", Scenario)
def test_every_month_of_every_scenario_is_valid(scenario: Scenario, played: Callable[[Scenario], list[pd.DataFrame]]) -> None:
    for rows in played(scenario):
        columns = {str(name): rows[name] for name in rows}

        assert list(columns) == [column.name for column in COLUMNS]
        assert list(broken(columns)) == []
        assert all(np.mean(rule.holds(columns)) >= max(rule.mostly, 0.98) for rule in RULES)
        assert rows.customer_id.is_unique
        assert (rows.monthly_charges == rows.monthly_charges.round(2)).all()


def test_rows_have_the_types_of_the_contract(reality: Reality) -> None:
    schema = World(10, 1, reality=reality).step().schema

    assert str(schema.field("event_timestamp").type) == "timestamp[us, tz=UTC]"
    assert str(schema.field("term").type).startswith("dictionary<values=string")
    assert str(schema.field("tenure_months").type) == "int64"
    assert str(schema.field("monthly_charges").type) == "double"
    assert str(schema.field("churned").type) == "bool"


def test_months_follow_the_snapshot_and_roll_over_the_year(reality: Reality) -> None:
    company = World(10, 1, reality=reality)

    moments = [company.step()["event_timestamp"][0].as_py() for _ in range(12)]

    assert moments[0] == datetime(2026, 2, 1, tzinfo=UTC)
    assert moments[-1] == datetime(2027, 1, 1, tzinfo=UTC)


def test_the_first_month_follows_the_real_labels(real: pd.DataFrame, played: Callable[[Scenario], list[pd.DataFrame]]) -> None:
    stayed = real[~real.churned].set_index("customer_id")

    first = played(Scenario.NONE)[0].set_index("customer_id")

    assert set(first.index) & set(real.customer_id) == set(stayed.index)
    assert (first.loc[stayed.index].tenure_months == np.minimum(stayed.tenure_months + 1, LONGEST)).all()
    assert (first.loc[stayed.index].gender.astype(str) == stayed.gender.astype(str)).all()


def test_churned_customers_never_return_and_others_age_by_a_month(
    played: Callable[[Scenario], list[pd.DataFrame]],
) -> None:
    months = [rows.set_index("customer_id") for rows in played(Scenario.SURGE)]

    for number, (now, then) in enumerate(pairwise(months), start=1):
        left, stayed = now.index[now.churned], now.index[~now.churned]

        assert not any(later.index.isin(left).any() for later in months[number:])
        assert (then.loc[stayed].tenure_months == np.minimum(now.loc[stayed].tenure_months + 1, LONGEST)).all()


def test_retained_customers_are_billed_the_monthly_charge(played: Callable[[Scenario], list[pd.DataFrame]]) -> None:
    now, then = (rows.set_index("customer_id") for rows in played(Scenario.NONE)[:2])
    stayed = now.index[~now.churned & (now.tenure_months < LONGEST)]

    billed = then.loc[stayed].total_charges - now.loc[stayed].total_charges.fillna(0)

    assert np.allclose(billed, then.loc[stayed].monthly_charges, atol=0.01)


def test_services_terms_and_charges_change_for_a_few_customers_a_month(
    played: Callable[[Scenario], list[pd.DataFrame]],
) -> None:
    now, then = (rows.set_index("customer_id") for rows in played(Scenario.NONE)[:2])
    stayed = now.index[~now.churned]

    for name in ("internet_service", "tech_support", "term", "payment_method", "monthly_charges"):
        changed = (now.loc[stayed, name] != then.loc[stayed, name]).mean()

        assert 0 < changed < 0.1, name


def test_labels_are_sampled_from_the_exposed_hazard(played: Callable[[Scenario], list[pd.DataFrame]]) -> None:
    rows = pd.concat(played(Scenario.NONE))
    band = pd.qcut(np.asarray(rows.index), 10, labels=False)

    expected, seen = (pd.Series(np.asarray(each)).groupby(band).mean() for each in (rows.index, rows.churned))

    assert (expected - seen).abs().max() < 0.03


def test_the_default_scenario_matches_the_real_distribution(
    real: pd.DataFrame, played: Callable[[Scenario], list[pd.DataFrame]]
) -> None:
    for rows in played(Scenario.NONE):
        drifted = {name: value for name, value in drift(real, rows).items() if value >= 0.1}

        assert drifted == {}
        assert rows.churned.mean() == pytest.approx(real.churned.mean(), abs=0.03)
        assert 0.83 < roc_auc_score(rows.churned, rows.index) < 0.87


def test_the_tenure_distribution_is_stable_over_a_year(real: pd.DataFrame, reality: Reality) -> None:
    company = World(REAL, 11, reality=reality)

    tenures = [company.step()["tenure_months"].to_numpy() for _ in range(12)]

    assert real.tenure_months.max() == LONGEST
    assert [months.max() for months in tenures] == [LONGEST] * 12
    assert {number: moved for number, months in enumerate(tenures) if (moved := psi(real.tenure_months, months)) >= 0.1} == {}


def test_a_total_is_limited_by_the_longest_tenure(reality: Reality) -> None:
    company = World(REAL, 11, reality=reality)

    *_, last = (company.step().to_pandas() for _ in range(12))

    oldest = last[last.tenure_months == LONGEST]
    assert len(oldest) > 300
    assert oldest.total_charges.median() == pytest.approx((LONGEST * oldest.monthly_charges).median(), rel=0.05)


def test_a_price_rise_raises_charges_and_churn(real: pd.DataFrame, played: Callable[[Scenario], list[pd.DataFrame]]) -> None:
    before, after, *_ = played(Scenario.PRICE_RISE)

    assert psi(real.monthly_charges, before.monthly_charges) < 0.1
    assert psi(real.monthly_charges, after.monthly_charges) > 0.2
    assert after.monthly_charges.mean() == pytest.approx(before.monthly_charges.mean() * world.PRICE_LEVEL, rel=0.02)
    assert after.churned.mean() > before.churned.mean() + 0.04


def test_new_customers_pay_the_raised_price_and_do_not_churn_more(
    reality: Reality, played: Callable[[Scenario], list[pd.DataFrame]]
) -> None:
    raised, usual = (played(scenario)[-1] for scenario in (Scenario.PRICE_RISE, Scenario.NONE))

    new, old = (frame[frame.tenure_months == 1] for frame in (raised, usual))

    assert new.total_charges.equals(new.monthly_charges)
    assert new.monthly_charges.min() > old.monthly_charges.min() * 1.1
    assert float(np.mean(new.index)) == pytest.approx(float(np.mean(old.index)), abs=0.05)


def test_a_surge_adds_new_customers_with_short_tenure(
    real: pd.DataFrame, played: Callable[[Scenario], list[pd.DataFrame]]
) -> None:
    months = played(Scenario.SURGE)

    arrived = [len(after) - len(before) for before, after in pairwise(months)]

    assert arrived == [round(world.SURGE * 624)] * (MONTHS - 1)
    assert psi(real.tenure_months, months[FIRST + 1].tenure_months) > 0.2
    assert (months[-1].term == "Month-to-month").mean() > (months[0].term == "Month-to-month").mean() + 0.05


def test_concept_drift_degrades_the_old_model_without_feature_drift(
    real: pd.DataFrame, played: Callable[[Scenario], list[pd.DataFrame]]
) -> None:
    before, changed, later, *_ = played(Scenario.CONCEPT)
    old, new = trained_on(real), trained_on(changed)

    assert max(drift(real, later).values()) < 0.1
    assert old(before) > 0.82
    assert old(later) < 0.75
    assert new(later) > 0.82


def test_additional_customers_are_copies_with_unique_ids(real: pd.DataFrame, reality: Reality) -> None:
    first, second = (World(REAL + 100, 1, chunk=chunk, reality=reality).step().to_pandas() for chunk in (0, 1))

    assert set(first.customer_id).isdisjoint(second.customer_id)
    assert set(second.customer_id).isdisjoint(real.customer_id)
    assert first.customer_id.isin(real.customer_id).sum() == (~real.churned).sum()


def test_parts_have_chunk_and_month_in_their_name_and_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.simulate.CHUNK", 100)
    seen: list[int] = []

    rows = simulate(tmp_path / "parts", customers=250, months=2, seed=1, on_rows=seen.append)

    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == [f"part-{chunk:04d}-{month:03d}.parquet" for chunk in range(3) for month in (1, 2)]
    assert rows == sum(seen) == 500
    frame, unreadable = typed(read(str(tmp_path / "parts")))
    assert len(frame) == 500
    assert not unreadable
    assert not frame.duplicated(["customer_id", "event_timestamp"]).any()


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        simulate(tmp_path / folder, customers=50, months=2, seed=3, scenario=Scenario.SURGE, scenario_month=2)

    left, right = ({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("left", "right"))
    assert left == right


def test_a_failed_part_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any, path: Path) -> None:
        path.write_text("half a part")
        raise OSError("No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", fail)

    with pytest.raises(OSError, match="No space left"):
        simulate(tmp_path, customers=50, months=1, seed=1)

    assert list(tmp_path.iterdir()) == []


def test_a_simulation_can_have_one_customer(tmp_path: Path) -> None:
    assert simulate(tmp_path, customers=1, months=24, seed=1, scenario=Scenario.PRICE_RISE) == 24


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"customers": 0}, "simulate: customers = 0: must be at least 1"),
        ({"months": 0}, "simulate: months = 0: must be at least 1"),
        ({"seed": -1}, "simulate: seed = -1: must be at least 0"),
        ({"scenario_month": 0}, "simulate: scenario_month = 0: must be at least 1"),
        ({"scenario": Scenario.SURGE, "scenario_month": 9}, "surge would begin after the last of 2 months; raise months"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(tmp_path, **{"customers": 10, "months": 2, "seed": 1} | wrong)


def test_a_folder_with_parts_is_refused_and_not_changed(tmp_path: Path) -> None:
    simulate(tmp_path, customers=10, months=1, seed=1)
    before = (tmp_path / "part-0000-001.parquet").read_bytes()

    with pytest.raises(ConfigError, match=r"holds parts already .* remove them or choose another folder"):
        simulate(tmp_path, customers=10, months=1, seed=2)

    assert (tmp_path / "part-0000-001.parquet").read_bytes() == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()

    with pytest.raises(ConfigError, match="is a file"):
        simulate(tmp_path / "rows.csv", customers=10, months=1, seed=1)


def test_a_contract_other_than_telco_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BY_NAME, "internet_service")

    with pytest.raises(ContractError, match=r"no column internet_service; simulate plays Telco's world only"):
        learn()


def test_a_missing_file_of_real_customers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SourceError, match=r"customers\.csv"):
        learn()


def test_a_damaged_file_of_real_customers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = Path("data/raw/customers.csv").read_text().replace("29.85", "dear", 1)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/customers.csv").write_text(damaged)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ContractError, match=r"monthly_charges: expected real .* in 1 of 7043 rows"):
        learn()


def test_no_progress_bar_is_printed_without_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo.simulate", str(tmp_path / "out"), "--customers", "10", "--months", "2"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == f"20 rows of 2 months in {tmp_path / 'out'}\n"
    assert "\r" not in done.stderr
    assert "%" not in done.stderr
