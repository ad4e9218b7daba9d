"""A key of several columns becomes one text, and never the same text as another key."""

from typing import Any

import pyarrow as pa
import pytest

from churn.adapters.sources.spelling import with_joined_key
from churn.contract import ENTITY
from churn.errors import SourceError


def table(accounts: list[Any], lines: list[Any]) -> pa.Table:
    return pa.table({"other": accounts, f"{ENTITY}:account": accounts, f"{ENTITY}:line": lines})


def test_parts_are_joined_in_the_place_of_the_first() -> None:
    joined = with_joined_key(table(["A", "B"], [1, 2]), "new.parquet")

    assert joined.to_pydict() == {"other": ["A", "B"], ENTITY: ["A:1", "B:2"]}


def test_a_record_batch_stays_one() -> None:
    [batch] = table(["A"], ["x"]).to_batches()

    assert with_joined_key(batch, "new.csv").to_pydict()[ENTITY] == ["A:x"]


def test_a_table_without_parts_is_unchanged() -> None:
    rows = pa.table({ENTITY: ["A:1"]})

    assert with_joined_key(rows, "new.csv") is rows


@pytest.mark.parametrize("part", ["", " ", None, "A:1", " A", "A "])
def test_a_part_that_could_make_two_keys_one_is_refused(part: str | None) -> None:
    with pytest.raises(SourceError, match=f"new.csv: account: expected a part of {ENTITY}"):
        with_joined_key(table(["A", part], ["1", "2"]), "new.csv")
