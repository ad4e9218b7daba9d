import pandas as pd
import pytest

from churn.errors import ContractError
from churn.pipeline.prepare import is_test, split
from factory import rows


def test_the_side_of_a_customer_does_not_depend_on_other_customers() -> None:
    few, many = rows(100), rows(1000)

    aside_of_few, aside_of_many = split(few, 0.2)[1], split(many, 0.2)[1]

    assert set(aside_of_few.customer_id) == set(aside_of_many.customer_id) & set(few.customer_id)


@pytest.mark.parametrize(("customer", "aside"), [("8504-XZKFR", False), ("3662-CGDGC", False), ("5569-WHTFG", True)])
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
    train, aside = split(rows(1, customer_id="8504-XZKFR"), 0.2)

    assert (len(train), len(aside)) == (1, 0)


def months(count: int) -> pd.DataFrame:
    """A hundred customers with a row in each month."""
    ends = pd.date_range("2026-01-31", periods=count, freq="ME", tz="UTC")
    return pd.concat([rows(100).assign(event_timestamp=end) for end in ends], ignore_index=True)


def test_by_time_the_newest_months_are_aside_whole() -> None:
    train, aside = split(months(6), 0.2, "time")

    assert train.event_timestamp.max() < aside.event_timestamp.min()
    assert (len(train), len(aside)) == (400, 200)
    assert set(train.customer_id) == set(aside.customer_id)


def test_by_time_the_order_of_rows_changes_no_side() -> None:
    frame = months(6)

    shuffled = split(frame.sample(frac=1, random_state=0), 0.2, "time")[1]

    keys = ["customer_id", "event_timestamp"]
    assert set(map(tuple, shuffled[keys].to_numpy())) == set(map(tuple, split(frame, 0.2, "time")[1][keys].to_numpy()))


def test_by_time_one_timestamp_is_refused() -> None:
    with pytest.raises(ContractError, match=r"expected several times in event_timestamp .* prepare.split: customer"):
        split(rows(100), 0.2, "time")
