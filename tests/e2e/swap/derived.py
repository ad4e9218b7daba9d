"""The derived features of the streaming service."""

import numpy as np

from churn.contract import Array, Columns, Flag, Real
from churn.domain.derived import feature


@feature(Real(ge=0))
def price_per_hour(c: Columns) -> Array:
    """Cents paid per hour watched; the whole price where nothing was watched"""
    hours = np.nan_to_num(np.asarray(c["hours_watched"], dtype=np.float64))
    return c["price_cents"] / np.maximum(hours, 1)


@feature(Real(ge=0), null_as=-1)
def hours_per_title(c: Columns) -> Array:
    """Hours watched per title finished; null for an account that has never watched"""
    return c["hours_watched"] / np.maximum(c["titles_finished"], 1)


@feature(Flag())
def is_idle(c: Columns) -> Array:
    """Nobody has logged in for two weeks"""
    return np.asarray(c["days_since_login"] >= 14)
