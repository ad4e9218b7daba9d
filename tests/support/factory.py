"""Rows that keep the contract, made from it: `rows` as `rows.typed` gives them, `raw_table` as a raw CSV spells them."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from churn.contract import BY_NAME, COLUMNS, LABEL, Category, Column, Flag, Integer, Real, Text, Timestamp
from churn.domain.derived import DERIVED, Derivation
from company.tables import EXTRAS, SNAPSHOT


def rows(n: int = 1, *, seed: int = 0, **overrides: Any) -> pd.DataFrame:
    """`n` typed rows that keep the contract, the same for the same arguments; from four rows on, of both classes.

    An override is a value for every row, or one per row. It is kept as given; the columns that are not overridden follow it, as
    `contract.RULES` demands: `rows(pool_access="No")` has no add-ons, `rows(member_months=0)` no total.
    """
    rng = np.random.default_rng(seed)
    drawn = pd.DataFrame({column.name: _drawn(column, n, rng) for column in COLUMNS})
    drawn[LABEL] = np.arange(n) % 4 == 3
    frame = _keeping_rules(drawn.assign(**overrides), rng).assign(**overrides)
    return frame.astype({column.name: "category" for column in COLUMNS if isinstance(column.kind, Category)})


def one(**overrides: Any) -> dict[str, Any]:
    """One row as a dict of arrays of one value, as the server holds a request."""
    return {str(name): values.to_numpy() for name, values in rows(1, **overrides).astype(object).infer_objects().items()}


def derivation(name: str) -> Derivation:
    """The function of features.py with that name."""
    derive = DERIVED[name].derive
    assert derive
    return derive


def raw_table(frame: pd.DataFrame) -> pa.Table:
    """The frame as `churn.adapters.sources.read` returns a raw CSV: everything is text in the source's spelling, a null is ''."""
    return pa.table({str(name): [_spelled(BY_NAME[str(name)], value) for value in frame[name]] for name in frame})


def _drawn(column: Column, n: int, rng: np.random.Generator) -> Any:
    match column.kind:
        case Text():
            return [f"{column.name}-{index:05d}" for index in range(n)]
        case Timestamp():
            return pd.Series(column.default or SNAPSHOT, index=range(n)).astype("datetime64[us, UTC]")
        case Integer(ge, le):
            return rng.integers(ge or 0, 100 if le is None else le, n, endpoint=True)
        case Real(ge, le):
            return rng.uniform(ge or 0, 100 if le is None else le, n).round(2)
        case Flag():
            return rng.random(n) < 0.5
        case Category(values):
            return rng.choice(np.array(values, dtype=object), n)


def _keeping_rules(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The rules between the columns of company/tables.py."""
    offline = frame["pool_access"] == "No"
    taken = {name: rng.choice(np.array(["Yes", "No"], dtype=object), len(frame)) for name in EXTRAS}
    extras = {name: np.where(offline, "No pool", values) for name, values in taken.items()}
    lines = np.where(frame["has_locker"].astype(bool), rng.choice(["Yes", "No"], len(frame)), "No locker")
    billed = frame["member_months"] * frame["monthly_fee"] * rng.uniform(0.9, 1.1, len(frame))
    total = billed.round(2).where(frame["member_months"] != 0)
    return frame.assign(**extras, second_locker=lines.astype(object), total_fees=total)


def _spelled(column: Column, value: Any) -> str:
    match column.kind:
        case _ if pd.isna(value):
            return ""
        case Flag(yes, no):
            return {True: yes, False: no}.get(value, str(value))
        case Timestamp() if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat()
        case _:
            return str(value)
