"""Derived features, one function a column.

The function's name is the column, its docstring the description. Each is plain array arithmetic over a mapping of columns, so
that the same code runs on a DataFrame in `featurize`, on a batch in `churn score` and on one request in the server.
"""

import numpy as np

from churn.contract import RAW_FEATURES, Array, Columns, Flag, Integer, Real
from churn.domain.derived import DERIVED, Feature, feature

ADD_ONS = ("online_security", "online_backup", "device_protection", "tech_support", "streaming_tv", "streaming_movies")


@feature(Real(ge=0))
def total_value(c: Columns) -> Array:
    """What the whole tenure is worth at today's charge: tenure_months × monthly_charges, US dollars"""
    return c["tenure_months"] * c["monthly_charges"]


@feature(Real(ge=0))
def average_monthly_charges(c: Columns) -> Array:
    """Billed per month since joining, US dollars; today's charge before the first bill"""
    billed = c["tenure_months"] > 0
    months = np.where(billed, c["tenure_months"], 1)
    return np.where(billed, c["total_charges"] / months, c["monthly_charges"])


@feature(Real(ge=0))
def charges_ratio(c: Columns) -> Array:
    """Average monthly charge over today's: below 1 after a price rise, 1 where today's charge is 0"""
    today = np.asarray(c["monthly_charges"], dtype=np.float64)
    return np.divide(average_monthly_charges(c), today, out=np.ones_like(today), where=today > 0)


@feature(Integer(0, len(ADD_ONS)))
def add_ons(c: Columns) -> Array:
    """Number of add-on services taken"""
    taken: Array = np.sum([c[name] == "Yes" for name in ADD_ONS], axis=0)
    return taken


@feature(Flag())
def has_family(c: Columns) -> Array:
    """Lives with a partner or with dependents"""
    return np.asarray(c["has_partner"] | c["has_dependents"])


@feature(Flag())
def is_autopay(c: Columns) -> Array:
    """Pays without doing anything: by bank transfer or credit card"""
    method = c["payment_method"]
    return np.asarray((method == "Bank transfer (automatic)") | (method == "Credit card (automatic)"))


@feature(Flag())
def is_new(c: Columns) -> Array:
    """Joined within the last six months"""
    return np.asarray(c["tenure_months"] <= 6)


FEATURES: tuple[Feature, ...] = (
    *(Feature(each.name, each.kind, each.description, null_as=each.null_as) for each in RAW_FEATURES),
    *DERIVED.values(),
)
"""Every input of the model: the contract's features, then the derived ones."""
