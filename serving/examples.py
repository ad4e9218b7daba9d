"""One customer that keeps the contract: what the API's document shows, and what the page's form begins with."""

from typing import Any

from churn.contract import BY_NAME, ENTITY, RAW_FEATURES, RULES, Category, Column, Date, Flag, Integer, Real
from serving.rows import columns_of


def _example(column: Column) -> Any:
    """A value that keeps the column's rule."""
    match column.kind:
        case Category(values):
            return values[0]
        case Flag():
            return False
        case Integer(ge, le):
            return min(12, le) if le is not None else max(12, ge or 0)
        case Date():
            return "2020-01-01"
        case Real(ge, le):
            return min(50.0, le) if le is not None else max(50.0, ge or 0)
        case _:
            return f"{column.name}-1"


def _example_customer() -> dict[str, Any]:
    """Keeps the contract's kinds and, as far as changing one column at a time gets, all its rules."""
    row = {each.name: _example(each) for each in RAW_FEATURES}
    # From the end: what adds up or depends on other columns usually stands after them.
    for column in reversed(RAW_FEATURES):
        candidates = [row[column.name], *_candidates(column)]
        row = min(({**row, column.name: value} for value in candidates), key=_broken_rules)
    return row


def _candidates(column: Column) -> list[Any]:
    match column.kind:
        case Category(values):
            return list(values)
        case Flag():
            return [True, False]
        case Date():
            return ["2020-01-01", "2024-01-01", "2010-01-01", "2000-01-01"]
        case Integer(ge, le) | Real(ge, le):
            steps = (digit * 10**power for power in range(5) for digit in (1, 2, 5))
            return [each for each in steps if (ge is None or each >= ge) and (le is None or each <= le)]
        case _:
            return []


def _broken_rules(row: dict[str, Any]) -> int:
    columns = columns_of([row])
    return sum(not rule.holds(columns).all() for rule in RULES)


EXAMPLE: dict[str, Any] = {ENTITY: _example(BY_NAME[ENTITY]), **_example_customer()}
"""A value per column of a request."""
