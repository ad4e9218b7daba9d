"""Months made of a table's own rows: here the shipped customers, as those of any other table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from churn import paths
from churn.adapters.rows import typed
from churn.contract import COLUMNS, ENTITY, LABEL, Category, Column, Integer, Real
from churn.domain.metrics import roc_auc
from churn.errors import ContractError
from demo.table_world import CEILING, Change, Kind, Table, TableWorld, check_growth, checked, proposed

CUSTOMERS = 3000

Put = Callable[[pd.DataFrame], None]


@pytest.fixture(scope="module")
def table() -> Table:
    return Table()


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts rows in place of those of data/raw."""

    def put(rows: pd.DataFrame) -> None:
        rows.to_csv(tmp_path / "rows.csv", index=False)
        monkeypatch.setattr(paths, "RAW", tmp_path)

    return put


@pytest.fixture
def shipped() -> pd.DataFrame:
    """The shipped rows as text."""
    return pd.read_csv(paths.RAW / "customers.csv", dtype=str)


def months(table: Table, change: Change, count: int = 5) -> list[tuple[pa.Table, np.ndarray]]:
    world = TableWorld(CUSTOMERS, 7, change, 3, table=table)
    return [(world.step(), world.hazard) for _ in range(count)]


def test_a_month_has_the_contracts_columns_and_one_row_for_each_customer(table: Table) -> None:
    ((first, _), *_) = months(table, Change(), 1)

    assert first.schema.names == [column.name for column in COLUMNS]
    assert len({*first[ENTITY].to_pylist()}) == len(first) == CUSTOMERS


def test_the_same_seed_gives_the_same_customers_and_labels(table: Table) -> None:
    (_, (one, _)), (_, (other, _)) = (months(table, Change(), 2) for _ in range(2))

    assert one.drop(["event_timestamp"]).equals(other.drop(["event_timestamp"]))


def test_customers_who_churned_are_replaced_by_new_ones(table: Table) -> None:
    (first, _), (second, _) = months(table, Change(), 2)

    churned = {name for name, left in zip(first[ENTITY].to_pylist(), first[LABEL].to_pylist(), strict=True) if left}
    assert churned
    assert {*first[ENTITY].to_pylist()} - {*second[ENTITY].to_pylist()} == churned


def test_a_column_that_grows_has_grown_by_what_the_contract_says(table: Table) -> None:
    (first, _), (second, _) = months(table, Change(), 2)

    before, after = (
        dict(zip(each[ENTITY].to_pylist(), each["tenure_months"].to_pylist(), strict=True)) for each in (first, second)
    )
    longest = int(table.rows["tenure_months"].max())
    steps = {after[name] - before[name] for name in before.keys() & after.keys() if before[name] < longest}
    assert steps <= {0, 1}  # 0 where the grown row would break a rule
    assert 1 in steps


def test_without_a_change_the_churn_rate_stays(table: Table) -> None:
    rates = [float(hazard.mean()) for _, hazard in months(table, Change(), 6)]

    assert max(rates) - min(rates) < 0.03


@pytest.mark.parametrize("kind", [Kind.RAISE, Kind.FLIP])
def test_after_the_change_leaving_depends_on_other_things(table: Table, kind: Kind) -> None:
    world = TableWorld(CUSTOMERS, 7, proposed(table, kind), 3, table=table)
    for _ in range(4):
        rows = world.step()

    y = rows[LABEL].to_numpy(zero_copy_only=False)
    learned_before = table.log_odds(typed(rows)[0])
    assert roc_auc(y, world.hazard.astype(np.float64)) > roc_auc(y, learned_before) + 0.02


def test_a_raise_multiplies_the_column_from_its_month_on(table: Table) -> None:
    (_, (before, _), (after, _)) = months(table, Change(Kind.RAISE, "monthly_charges", "1.2"), 3)

    old, new = (dict(zip(each[ENTITY].to_pylist(), each["monthly_charges"].to_pylist(), strict=True)) for each in (before, after))
    stayed = old.keys() & new.keys()
    ratios = np.array([new[name] / old[name] for name in stayed])
    assert np.isclose(ratios, 1.2, rtol=1e-3).mean() > 0.9  # the others moved to another plan


@pytest.mark.parametrize("kind", [Kind.RAISE, Kind.FLIP])
def test_after_the_month_of_the_change_the_churn_rate_stays(table: Table, kind: Kind) -> None:
    rates = [float(hazard.mean()) for _, hazard in months(table, proposed(table, kind), 9)]

    assert max(rates[2:]) - min(rates[2:]) < 0.03


@pytest.mark.parametrize("kind", [Kind.NONE, Kind.RAISE, Kind.FLIP])
def test_nobody_is_certain_to_leave(table: Table, kind: Kind) -> None:
    assert max(float(hazard.max()) for _, hazard in months(table, proposed(table, kind))) <= CEILING


def test_a_raise_acts_on_those_with_much_of_the_column_and_not_on_the_middle(table: Table) -> None:
    (*_, (calm, before)), (*_, (rows, after)) = (
        months(table, change, 3) for change in (Change(), Change(Kind.RAISE, "monthly_charges", "1.2"))
    )

    assert calm[ENTITY].equals(rows[ENTITY])
    values, rose = calm["monthly_charges"].to_numpy(), after - before
    known = np.isclose(rows["monthly_charges"].to_numpy(), 1.2 * values, rtol=1e-3)  # others joined in that month
    values, rose = values[known], rose[known]
    low, middle, high = (np.quantile(values, share) for share in (0.1, 0.5, 0.9))
    assert rose[values > high].mean() > 0.1
    assert rose[values < low].mean() < 0
    assert abs(rose[np.abs(values - middle) < 1].mean()) < 0.05


def test_the_rows_of_a_month_are_in_no_order(table: Table) -> None:
    months_ = months(table, Change(), 5)

    rows, hazard = months_[-1]
    joined = np.array([name.startswith("simulated") for name in rows[ENTITY].to_pylist()])
    tenth = len(rows) // 10
    assert abs(joined[-tenth:].mean() - joined.mean()) < 0.1
    assert abs(hazard[-tenth:].mean() - hazard.mean()) < 0.05


def test_a_surge_brings_customers_of_the_named_value(table: Table) -> None:
    calm, surge = (months(table, change, 4)[-1][0] for change in (Change(), Change(Kind.SURGE, "term", "Two year")))

    assert len(surge) > len(calm) == CUSTOMERS
    shares = [each["term"].to_pylist().count("Two year") / len(each) for each in (calm, surge)]
    assert shares[1] > shares[0] + 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change(Kind.RAISE, "term", "1.2"), "expected a number"),
        (Change(Kind.RAISE, "monthly_charges", "much"), "expected COLUMN=FACTOR"),
        (Change(Kind.SURGE, "term", "Three year"), "no row has term"),
        (Change(Kind.FLIP, "tenure", ""), "expected a feature"),
    ],
)
def test_an_impossible_change_is_refused_in_one_line(table: Table, change: Change, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        checked(change, table)


def test_rows_with_too_few_churned_customers_for_the_gate_are_refused(raw: Put, shipped: pd.DataFrame) -> None:
    churned = shipped.Churn == "Yes"
    raw(pd.concat([shipped[churned].head(100), shipped[~churned]]))

    with pytest.raises(ContractError, match="expected at least 50 churned customers among the test rows"):
        Table()


def test_rows_that_break_the_contract_are_refused_with_the_rule(raw: Put, shipped: pd.DataFrame) -> None:
    shipped.loc[3, "tenure"] = "-5"
    raw(shipped)

    with pytest.raises(ContractError, match=r"tenure_months: expected .* in 1 of 7043 rows"):
        Table()


def test_features_that_do_not_predict_churn_are_refused(raw: Put, shipped: pd.DataFrame) -> None:
    raw(shipped.assign(Churn=shipped.Churn.sample(frac=1, random_state=0).to_numpy()))

    with pytest.raises(ContractError, match=r"expected features that predict leaving with a ROC-AUC of at least 0\.65"):
        Table().require_predictable()


def test_customers_with_many_rows_churn_in_a_month_as_often_as_rows_do(raw: Put, shipped: pd.DataFrame) -> None:
    ends = ["2026-01-31", "2026-02-28", "2026-03-31"]
    snapshots = [shipped.assign(event_timestamp=end, Churn=shipped.Churn if end == ends[-1] else "No") for end in ends]
    raw(pd.concat(snapshots))

    ((first, hazard),) = months(Table(), Change(), 1)

    assert first[ENTITY].to_pandas().is_unique
    assert hazard.mean() == pytest.approx((shipped.Churn == "Yes").mean() / 3, abs=0.02)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column(name="plan", kind=Category(("A", "B")), grows_by=1, description=""), "expected an Integer or Real"),
        (Column(name="age", kind=Integer(0, 99), grows_by=1, fixed=True, description=""), "that is not fixed"),
        (
            Column(name="paid", kind=Real(0, 99), grows_by="fee", description=""),
            "the name of an Integer or Real column, got 'fee'",
        ),
    ],
)
def test_growth_of_anything_but_a_number_by_a_number_is_refused(column: Column, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_growth([column])


def test_a_proposed_flip_costs_a_model_no_more_than_the_gate_accepts(table: Table) -> None:
    change, y = proposed(table, Kind.FLIP), table.rows[LABEL].to_numpy(dtype=bool)

    before, after = (roc_auc(y, table.log_odds(rows)) for rows in (table.rows, table.flipped(table.rows, change.column)))
    bounds = table.params.evaluate.gate
    assert 0.05 <= before - after <= bounds.source_auc_margin
    assert after >= bounds.source_min_auc
