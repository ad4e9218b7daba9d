import pandas as pd
import pytest

from churn.pipeline.prepare import is_test, split
from factory import rows


def test_the_side_of_a_customer_does_not_depend_on_other_customers() -> None:
    few, many = rows(100), rows(1000)

    aside_of_few, aside_of_many = split(few, 0.2)[1], split(many, 0.2)[1]

    assert set(aside_of_few.customer_id) == set(aside_of_many.customer_id) & set(few.customer_id)


@pytest.mark.parametrize(("customer", "aside"), [("7590-VHVEG", False), ("5575-GNVDE", False), ("9237-HQITU", True)])
def test_the_side_of_a_customer_is_fixed(customer: str, aside: bool) -> None:
    assert is_test(customer, 0.2) is aside


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_the_test_share_is_close_to_the_fraction(fraction: float) -> None:
    _, aside = split(rows(10_000), fraction)

    assert len(aside) / 10_000 == pytest.approx(fraction, abs=0.015)


def test_a_larger_fraction_only_adds_test_customers() -> None:
    frame = rows(1000)

    assert set(split(frame, 0.1)[1].customer_id) < set(split(frame, 0.2)[1].customer_id)


def test_all_rows_of_a_customer_are_on_one_side() -> None:
    later = rows(300).assign(event_timestamp=pd.Timestamp("2026-02-01", tz="UTC"))

    train, aside = split(pd.concat([rows(300), later], ignore_index=True), 0.2)

    assert set(train.customer_id) & set(aside.customer_id) == set()
    assert len(train) + len(aside) == 600


def test_rows_keep_their_values_and_order() -> None:
    frame = rows(200)

    train, aside = split(frame, 0.2)

    together = pd.concat([train, aside]).sort_values("customer_id", ignore_index=True)
    pd.testing.assert_frame_equal(together, frame)
    assert train.customer_id.is_monotonic_increasing
    assert aside.index.tolist() == list(range(len(aside)))


def test_a_side_can_be_empty() -> None:
    train, aside = split(rows(1, customer_id="7590-VHVEG"), 0.2)

    assert (len(train), len(aside)) == (1, 0)
