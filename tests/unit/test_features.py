from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.contract import BY_NAME, RAW_FEATURES, Category
from churn.domain.derived import DERIVED
from churn.domain.encoding import Coded, derive, encode, encoded_names
from churn.features import FEATURES
from company.tables import EXTRAS
from factory import derivation, one, rows

lifetime_fees = derivation("lifetime_fees")
average_monthly_fee = derivation("average_monthly_fee")
fee_ratio = derivation("fee_ratio")
extras = derivation("extras")
has_company = derivation("has_company")
is_automatic = derivation("is_automatic")
is_beginner = derivation("is_beginner")


def arrays(frame: pd.DataFrame) -> dict[str, Any]:
    """The frame as the server holds it: NumPy arrays, categories as texts."""
    plain = {name: object if isinstance(BY_NAME[str(name)].kind, Category) else frame[name].dtype for name in frame}
    return {str(name): frame[name].astype(plain[name]).to_numpy() for name in frame}


def coded(frame: pd.DataFrame) -> dict[str, Any]:
    """The frame as batch scoring holds it: categories as codes."""
    found = arrays(frame)
    for column in RAW_FEATURES:
        if isinstance(column.kind, Category):
            codes = pd.Categorical(frame[column.name], categories=list(column.kind.values)).codes
            found[column.name] = Coded(codes.astype(np.int16), column.kind.values)
    return found


def billed(months: list[int], monthly: list[float], total: list[float]) -> pd.DataFrame:
    return rows(len(months), member_months=months, monthly_fee=monthly, total_fees=total)


def test_lifetime_fees_are_months_times_todays_fee() -> None:
    frame = billed([0, 1, 24], [70.0, 29.85, 50.5], [np.nan, 29.85, 1200.0])

    assert list(lifetime_fees(frame)) == [0.0, 29.85, 1212.0]


def test_average_monthly_fee_is_the_total_per_month() -> None:
    frame = billed([1, 24, 10], [29.85, 55.0, 0.0], [29.85, 1200.0, 0.0])

    assert list(average_monthly_fee(frame)) == [29.85, 50.0, 0.0]


def test_average_monthly_fee_is_todays_fee_before_the_first_bill() -> None:
    frame = billed([0], [70.0], [np.nan])

    assert list(average_monthly_fee(frame)) == [70.0]


def test_fee_ratio_is_below_1_after_a_price_rise_and_above_after_a_discount() -> None:
    frame = billed([10, 10], [100.0, 40.0], [800.0, 500.0])

    assert list(fee_ratio(frame)) == [0.8, 1.25]


def test_fee_ratio_is_1_before_the_first_bill() -> None:
    assert list(fee_ratio(billed([0], [70.0], [np.nan]))) == [1.0]


@pytest.mark.parametrize(("months", "total"), [(0, np.nan), (10, 0.0), (10, 50.0)])
def test_fee_ratio_is_1_where_todays_fee_is_0(months: int, total: float) -> None:
    assert list(fee_ratio(billed([months], [0.0], [total]))) == [1.0]


def test_extras_counts_those_taken() -> None:
    none: dict[str, Any] = dict.fromkeys(EXTRAS, "No")
    every: dict[str, Any] = dict.fromkeys(EXTRAS, "Yes")
    frame = pd.concat(
        [
            rows(1, **none),
            rows(1, **none | {"sauna": "Yes", "aqua_gym": "Yes"}),
            rows(1, **every),
            rows(1, pool_access="No"),
        ]
    )

    assert list(extras(frame)) == [0, 2, 6, 0]


def test_has_company_is_a_partner_or_children() -> None:
    frame = rows(4, is_duo=[False, True, False, True], has_children=[False, False, True, True])

    assert list(has_company(frame)) == [False, True, True, True]


def test_is_automatic_is_direct_debit_or_card() -> None:
    methods = ["Online invoice", "Paper invoice", "Direct debit (automatic)", "Card (automatic)"]

    assert list(is_automatic(rows(4, paid_by=methods))) == [False, False, True, True]


def test_is_beginner_lasts_for_the_first_six_months() -> None:
    assert list(is_beginner(rows(3, member_months=[0, 6, 7]))) == [True, True, False]


def test_every_derived_feature_has_its_own_test() -> None:
    mentioned = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}

    assert [name for name in DERIVED if not any(test.startswith(name) for test in mentioned)] == []


def test_a_feature_is_registered_under_its_functions_name_with_its_docstring() -> None:
    assert DERIVED["is_beginner"].name == "is_beginner"
    assert DERIVED["is_beginner"].description == "Joined within the last six months"


def test_features_are_the_contracts_then_the_derived_ones() -> None:
    assert [each.name for each in FEATURES] == [*(column.name for column in RAW_FEATURES), *DERIVED]


def test_derive_keeps_the_columns_and_puts_the_derived_ones_after_them() -> None:
    frame = rows(3)

    assert list(derive(frame)) == [*frame, *DERIVED]


@pytest.mark.parametrize("as_columns", [arrays, coded])
def test_derive_is_equal_for_every_container(as_columns: Any) -> None:
    frame = pd.concat([rows(200), rows(20, seed=1, member_months=0), rows(20, seed=2, monthly_fee=0.0)], ignore_index=True)

    on_frame, on_other = derive(frame), derive(as_columns(frame))

    for name in DERIVED:
        np.testing.assert_array_equal(np.asarray(on_frame[name]), np.asarray(on_other[name]), err_msg=name)


@pytest.mark.parametrize("name", DERIVED)
def test_derived_values_have_their_declared_kind(name: str) -> None:
    frame = pd.concat([rows(300), rows(20, seed=1, member_months=0), rows(20, seed=2, monthly_fee=0.0)], ignore_index=True)

    assert DERIVED[name].kind.holds(np.asarray(derive(frame)[name])).all()


def test_a_coded_column_compares_as_its_text_values() -> None:
    column = Coded(np.array([0, 1, -1], dtype=np.int16), ("a", "b"))

    assert list(column == "a") == [True, False, False]
    assert list(column != "a") == [False, True, True]
    assert len(column) == 3


def test_a_coded_null_equals_no_text() -> None:
    column = Coded(np.array([-1], dtype=np.int16), ("a", "b"))

    assert not any((column == text).any() for text in ("a", "b", "c", ""))


def test_encoded_names_have_one_column_per_value_of_a_category() -> None:
    names = encoded_names()

    assert [name for name in names if name.startswith("commitment")] == [
        "commitment=Monthly",
        "commitment=Season",
        "commitment=Two seasons",
    ]
    assert [name for name in names if name.startswith("member_months")] == ["member_months"]
    assert len(set(names)) == len(names)


def test_encode_returns_a_float32_column_per_encoded_name() -> None:
    matrix = encode(derive(rows(7)))

    assert matrix.shape == (7, len(encoded_names()))
    assert matrix.dtype == np.float32


def test_encode_is_one_hot_over_the_contract_values() -> None:
    names = encoded_names()
    matrix = encode(derive(rows(2, commitment=["Two seasons", "Monthly"])))

    assert matrix[:, [names.index(f"commitment={value}") for value in ("Monthly", "Season", "Two seasons")]].tolist() == [
        [0, 0, 1],
        [1, 0, 0],
    ]


def test_encode_passes_numbers_and_makes_flags_0_and_1() -> None:
    frame = rows(2, member_months=[3, 30], is_student=[True, False])

    assert encode(frame, ("member_months", "is_student")).tolist() == [[3, 1], [30, 0]]


def test_encode_replaces_a_null_by_the_contract_value() -> None:
    frame = rows(2, member_months=[0, 10], monthly_fee=50.0, total_fees=[np.nan, 500.0])

    assert encode(frame, ("total_fees",)).tolist() == [[0], [500]]


def test_encode_leaves_no_null_in_valid_rows() -> None:
    frame = pd.concat([rows(50), rows(5, seed=1, member_months=0, monthly_fee=0.0)], ignore_index=True)

    assert np.isfinite(encode(derive(frame))).all()


def test_an_unknown_category_encodes_to_zeros() -> None:
    names = tuple(name for name in encoded_names() if name.startswith("commitment="))

    assert encode(rows(1, commitment="Three seasons"), names).tolist() == [[0, 0, 0]]


def test_encode_of_some_names_returns_those_columns_in_order() -> None:
    columns = derive(rows(20))
    some = ("is_beginner", "commitment=Season", "member_months")

    chosen = encode(columns, some)

    np.testing.assert_array_equal(chosen, encode(columns)[:, [encoded_names().index(name) for name in some]])


def test_encode_refuses_a_missing_column() -> None:
    with pytest.raises(KeyError, match="shoe_size"):
        encode(rows(1), ("member_months", "shoe_size"))


@pytest.mark.parametrize("as_columns", [arrays, coded])
def test_encode_is_equal_for_every_container(as_columns: Any) -> None:
    frame = pd.concat([rows(100), rows(10, seed=1, member_months=0)], ignore_index=True)

    np.testing.assert_array_equal(encode(derive(frame)), encode(derive(as_columns(frame))))


def test_a_single_row_is_encoded_as_in_a_batch() -> None:
    frame = rows(30)
    together = encode(derive(frame))

    alone = [encode(derive(arrays(frame.iloc[[index]]))) for index in range(len(frame))]

    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_a_request_of_one_customer_is_encoded_like_its_row() -> None:
    np.testing.assert_array_equal(encode(derive(one(seed=3))), encode(derive(rows(1, seed=3))))
