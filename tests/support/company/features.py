"""Derived features, one function a column.

The function's name is the column, its docstring the description. Each is plain array arithmetic over a mapping of columns, so
that the same code runs on a DataFrame in `featurize`, on a batch in `churn score` and on one request in the server.
"""

import numpy as np

from churn.contract import RAW_FEATURES, Array, Columns, Flag, Integer, Real
from churn.domain.derived import DERIVED, Feature, feature

EXTRAS = ("swim_class", "sauna", "towel_service", "coaching", "aqua_gym", "diving")


@feature(Real(ge=0))
def lifetime_fees(c: Columns) -> Array:
    """What the whole Membership is worth at today's charge: member_months × monthly_fee, US dollars"""
    return c["member_months"] * c["monthly_fee"]


@feature(Real(ge=0))
def average_monthly_fee(c: Columns) -> Array:
    """Billed per month since joining, US dollars; today's charge before the first bill"""
    billed = c["member_months"] > 0
    months = np.where(billed, c["member_months"], 1)
    return np.where(billed, c["total_fees"] / months, c["monthly_fee"])


@feature(Real(ge=0))
def fee_ratio(c: Columns) -> Array:
    """Average monthly charge over today's: below 1 after a price rise, 1 where today's charge is 0"""
    today = np.asarray(c["monthly_fee"], dtype=np.float64)
    return np.divide(average_monthly_fee(c), today, out=np.ones_like(today), where=today > 0)


@feature(Integer(0, len(EXTRAS)))
def extras(c: Columns) -> Array:
    """Number of extras taken"""
    taken: Array = np.sum([c[name] == "Yes" for name in EXTRAS], axis=0)
    return taken


@feature(Flag())
def has_company(c: Columns) -> Array:
    """Comes with a partner or with children"""
    return np.asarray(c["is_duo"] | c["has_children"])


@feature(Flag())
def is_automatic(c: Columns) -> Array:
    """Pays without doing anything: by direct debit or card"""
    method = c["paid_by"]
    return np.asarray((method == "Direct debit (automatic)") | (method == "Card (automatic)"))


@feature(Flag())
def is_beginner(c: Columns) -> Array:
    """Joined within the last six months"""
    return np.asarray(c["member_months"] <= 6)


FEATURES: tuple[Feature, ...] = (
    *(Feature(each.name, each.kind, each.description, null_as=each.null_as) for each in RAW_FEATURES),
    *DERIVED.values(),
)
"""Every input of the model: the contract's features, then the derived ones."""
