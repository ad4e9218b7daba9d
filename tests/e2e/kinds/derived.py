"""The derived features of the telephone lines."""

import numpy as np

from churn.contract import Array, Columns, Flag, Real
from churn.domain.derived import feature


@feature(Flag())
def is_new(c: Columns) -> Array:
    """Joined within the last 90 days"""
    return np.asarray(c["joined"] <= 90)


@feature(Real(ge=0), null_as=-1)
def share_silent(c: Columns) -> Array:
    """The share of its time that the line has been silent; null before the first call"""
    return c["last_call"] / np.maximum(c["joined"], 1)


@feature(Flag(), null_as="missing")
def is_silent_user(c: Columns) -> Array:
    """Has the app, and has not called for a month; null where the app is not known"""
    return np.where(np.isnan(c["has_app"]), np.nan, (c["has_app"] == True) & (c["last_call"] > 30))  # noqa: E712 - elementwise
