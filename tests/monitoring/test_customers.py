"""Rows of some customers: all customers if there are few, else a share of them, each with all its rows."""

import pyarrow as pa
import pytest

from monitoring.customers import SomeCustomers

SCHEMA = pa.schema([("customer_id", pa.string()), ("number", pa.int64())])


def table(customers: list[str | None]) -> pa.Table:
    return pa.table({"customer_id": customers, "number": range(len(customers))}, schema=SCHEMA)


def test_all_rows_are_kept_below_the_limit() -> None:
    some = SomeCustomers(SCHEMA, "customer_id", 10)

    for _ in range(2):
        some.add(table(["a", "b", None, "a", "c"]))

    assert some.share == 1
    assert some.table()["customer_id"].to_pylist() == ["a", "b", "a", "c"] * 2


def test_a_sample_above_the_limit_estimates_the_number_of_rows() -> None:
    some = SomeCustomers(SCHEMA, "customer_id", 2_000)

    for start in range(0, 50_000, 1_000):
        some.add(table([f"customer-{number}" for number in range(start, start + 1_000)]))

    held = some.table()
    assert 500 < len(held) <= 2_000
    # 1562 of them at a share of 1/32: the standard deviation is 39.
    assert len(held) / some.share == pytest.approx(50_000, rel=0.1)


def test_the_rows_of_a_customer_stay_together() -> None:
    some = SomeCustomers(SCHEMA, "customer_id", 1_000)

    for _ in range(4):
        some.add(table([f"customer-{number}" for number in range(1_000)]))

    counts = {name: some.table()["customer_id"].to_pylist().count(name) for name in set(some.table()["customer_id"].to_pylist())}
    assert counts
    assert set(counts.values()) == {4}


def test_no_rows_give_an_empty_table() -> None:
    assert SomeCustomers(SCHEMA, "customer_id", 10).table().equals(SCHEMA.empty_table())
