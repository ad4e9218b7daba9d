from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.contract import (
    BY_NAME,
    COLUMNS,
    ENTITY,
    LABEL,
    PROTECTED,
    RAW_FEATURES,
    RULES,
    SLICES,
    TIMESTAMP,
    Category,
    Column,
    Flag,
    Integer,
    Kind,
    Real,
    Role,
    Rule,
    Text,
    Timestamp,
    Violation,
    broken,
    of_role,
)
from company.tables import EXTRAS
from factory import rows


def by_column(frame: pd.DataFrame) -> dict[str, Any]:
    return {str(name): frame[name] for name in frame}


def rule(name: str) -> Rule:
    return next(each for each in RULES if each.name == name)


@pytest.mark.parametrize("role", [Role.ENTITY, Role.TIMESTAMP, Role.LABEL])
def test_the_contract_has_one_entity_one_timestamp_and_one_label(role: Role) -> None:
    assert len(of_role(role)) == 1


def test_role_constants_are_the_columns_of_their_role() -> None:
    assert (ENTITY, TIMESTAMP, LABEL) == ("customer_id", "event_timestamp", "churned")
    assert len(RAW_FEATURES) == len(COLUMNS) - 3


def test_column_names_and_sources_are_unique() -> None:
    assert len({column.name for column in COLUMNS}) == len({column.source for column in COLUMNS}) == len(COLUMNS)


def test_every_column_has_a_description() -> None:
    assert all(column.description for column in COLUMNS)


def test_slices_and_protected_columns_are_features() -> None:
    features = {column.name for column in RAW_FEATURES}

    assert {each.column for each in SLICES} <= features
    assert set(PROTECTED) <= features


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (Integer(0, 720), [-1, 0, 720, 721], [False, True, True, False]),
        (Integer(), [-(10**9), 10**9], [True, True]),
        (Real(0, 1000), [-0.01, 0, 1000, 1000.01, np.nan], [False, True, True, False, False]),
        (Real(ge=0), [1e12, np.nan], [True, False]),
        (Category(("a", "b")), np.array(["a", "b", "c", None], dtype=object), [True, True, False, False]),
        (Flag(), np.array([True, False, None, "Yes"], dtype=object), [True, True, False, False]),
        (Text(), np.array(["a", "", None], dtype=object), [True, True, False]),
        (Timestamp(), np.array(["2026-01-01", "NaT"], dtype="datetime64[us]"), [True, False]),
        (Timestamp(), np.array([pd.Timestamp("2026-01-01", tz="UTC"), None]), [True, False]),
    ],
)
@pytest.mark.parametrize("container", [np.asarray, pd.Series])
def test_a_kind_accepts_values_within_its_bounds_and_no_null(
    kind: Kind, values: Any, expected: list[bool], container: Callable[[Any], Any]
) -> None:
    holds = kind.holds(container(values))

    assert list(holds) == expected


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Integer(0, 720), "integer ≥ 0 and ≤ 720"),
        (Integer(), "integer"),
        (Real(ge=0), "real ≥ 0"),
        (Real(le=1.5), "real ≤ 1.5"),
        (Category(("a", "b")), "one of a, b"),
        (Flag("1", "0"), "1 or 0"),
        (Text(), "text of 1 to 128 characters without control characters and blanks at either end"),
        (Timestamp(), "UTC timestamp"),
    ],
)
def test_a_kind_is_displayed_as_its_rule(kind: Kind, text: str) -> None:
    assert str(kind) == text


def test_only_a_column_with_a_null_meaning_is_nullable() -> None:
    assert [column.name for column in COLUMNS if column.nullable] == ["total_fees"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": Text()},
        {"kind": Flag(), "role": Role.ENTITY},
        {"kind": Category(("a",)), "null_as": 0.0},
        {"kind": Real(), "default": pd.Timestamp("2026-01-01")},
    ],
)
def test_an_inconsistent_column_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="odd"):
        Column(name="odd", description="", source="Odd", **wrong)


def test_factory_rows_are_valid() -> None:
    frame = rows(500)

    assert list(frame) == [column.name for column in COLUMNS]
    assert list(broken(by_column(frame))) == []
    assert all(each.holds(frame).all() for each in RULES)


@pytest.mark.parametrize("overrides", [{"member_months": 0}, {"pool_access": "No"}, {"has_locker": False}])
def test_factory_rows_with_overrides_are_valid(overrides: dict[str, Any]) -> None:
    frame = rows(20, **overrides)

    assert list(broken(by_column(frame))) == []


@pytest.mark.parametrize(
    "column", [column for column in COLUMNS if isinstance(column.kind, Integer | Real)], ids=lambda c: c.name
)
@pytest.mark.parametrize("beyond", [-1, 1])
def test_a_number_beyond_either_bound_breaks_its_column(column: Column, beyond: int) -> None:
    assert isinstance(column.kind, Integer | Real)
    bound = column.kind.ge if beyond < 0 else column.kind.le
    assert bound is not None
    beyond_it: dict[str, Any] = {column.name: bound + beyond}

    found = {subject: bad for subject, _, bad in broken(by_column(rows(1, **beyond_it)))}

    assert list(found[column.name]) == [True]


@pytest.mark.parametrize("column", [column for column in COLUMNS if not column.nullable], ids=lambda column: column.name)
def test_a_null_breaks_a_column_that_is_not_nullable(column: Column) -> None:
    frame = rows(2).astype({column.name: object})
    frame.loc[1, column.name] = None

    found = {subject: bad for subject, _, bad in broken(by_column(frame))}

    assert list(found[column.name]) == [False, True]


def test_a_null_in_a_nullable_column_is_accepted() -> None:
    frame = rows(1, member_months=0)

    assert frame.total_fees.isna().all()
    assert list(broken(by_column(frame))) == []


def test_a_broken_column_comes_with_its_rule_and_a_boolean_per_row() -> None:
    frame = rows(3, commitment=["Season", "Three seasons", "Two seasons"])

    [(subject, must_be, bad)] = broken(by_column(frame))

    assert subject == "commitment"
    assert must_be == "one of Monthly, Season, Two seasons"
    assert list(bad) == [False, True, False]


def test_unknown_columns_are_ignored() -> None:
    assert list(broken(by_column(rows(2).assign(shoe_size=-1)))) == []


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("blank_means_not_billed_yet", {"member_months": 5, "total_fees": np.nan}),
        ("blank_means_not_billed_yet", {"member_months": 0, "total_fees": 20.0}),
        ("no_pool_no_extras", {"pool_access": "No", "coaching": "Yes"}),
        ("no_pool_no_extras", {"pool_access": "Day pass", "aqua_gym": "No pool"}),
        ("no_locker_no_second", {"has_locker": False, "second_locker": "No"}),
        ("no_locker_no_second", {"has_locker": True, "second_locker": "No locker"}),
    ],
)
def test_a_rule_between_columns_finds_the_row_that_breaks_it(name: str, overrides: dict[str, Any]) -> None:
    found = [subject for subject, _, _ in broken(by_column(rows(1, **overrides)))]

    assert found == [name]


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_without_the_pool_breaks_the_rule(extra: str) -> None:
    row = rows(1, pool_access="No").assign(**{extra: "No"})

    assert not rule("no_pool_no_extras").holds(row).any()


@pytest.mark.parametrize(("total", "holds"), [(1300, True), (1301, False), (700, True), (699, False), (np.nan, True)])
def test_the_total_can_differ_by_30_percent_from_months_times_fee(total: float, holds: bool) -> None:
    row = rows(1, member_months=10, monthly_fee=100.0, total_fees=total)

    assert list(rule("billed_as_charged").holds(row)) == [holds]


def test_a_rule_for_most_rows_breaks_no_single_row() -> None:
    assert list(broken(by_column(rows(1, member_months=10, monthly_fee=100.0, total_fees=5000.0)))) == []


def test_a_violation_message_has_column_count_rule_and_first_rows() -> None:
    violation = Violation("monthly_fee", "real ≥ 0", 4, (("a", "-1"), ("b", "-2"), ("c", "-3"), ("d", "-4")))

    assert str(violation) == "monthly_fee: expected real ≥ 0, got another value in 4 rows (first: a: -1; b: -2; c: -3)"
    assert (
        str(Violation("commitment", "text", 1, (("a", "x"),)))
        == "commitment: expected text, got another value in 1 row (first: a: x)"
    )


def test_columns_are_found_by_name() -> None:
    assert {name: column.name for name, column in BY_NAME.items()} == {column.name: column.name for column in COLUMNS}
