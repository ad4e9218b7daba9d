"""Derived features, one function a column, and the matrix that every model takes.

The function's name is the column, its docstring the description. Each is plain array arithmetic over a mapping of columns, so
that the very same code runs on a DataFrame in `featurize`, on a batch in `churn score` and on one request in the server.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from churn.contract import ADD_ONS, RAW_FEATURES, Category, Columns, Flag, Integer, Kind, Real

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Feature:
    """One input of the model: a raw column of the contract, or a derived one."""

    name: str
    kind: Kind
    description: str
    null_as: float | None = None
    derive: Callable[[Columns], Any] | None = None


class Coded:
    """A category column as integer codes: compares like the array of texts that it stands for, twenty times faster.

    `codes` (n,) index into `values`; -1 is a null or an unknown text and equals nothing.
    """

    def __init__(self, codes: npt.NDArray[np.signedinteger[Any]], values: tuple[str, ...]) -> None:
        self.codes = codes
        self.values = values

    def __eq__(self, value: object) -> Any:
        return self.codes == (self.values.index(value) if value in self.values else -2)

    def __ne__(self, value: object) -> Any:
        return ~(self == value)

    __hash__ = None  # type: ignore[assignment]

    def codes_of(self, values: tuple[str, ...]) -> npt.NDArray[np.int16]:
        """The code of each of these texts, (m, 1); -2 for one that is not among `self.values`."""
        return _codes_of(values, self.values)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> "Coded":
        return Coded(self.codes[rows], self.values)


@cache
def _codes_of(wanted: tuple[str, ...], values: tuple[str, ...]) -> npt.NDArray[np.int16]:
    return np.array([[values.index(each) if each in values else -2] for each in wanted], dtype=np.int16)


DERIVED: dict[str, Feature] = {}


def feature(kind: Kind, *, null_as: float | None = None) -> Callable[[Callable[[Columns], Any]], Callable[[Columns], Any]]:
    """Register the decorated function as a derived feature of that kind; `null_as` is what its nulls mean, as a column's."""

    def register(function: Callable[[Columns], Any]) -> Callable[[Columns], Any]:
        name = function.__name__
        DERIVED[name] = Feature(name, kind, str(function.__doc__), null_as, function)
        return function

    return register


@feature(Real(ge=0))
def total_value(c: Columns) -> Any:
    """What the whole tenure is worth at today's charge: tenure_months × monthly_charges, US dollars"""
    return c["tenure_months"] * c["monthly_charges"]


@feature(Real(ge=0))
def average_monthly_charges(c: Columns) -> Any:
    """Billed per month since joining, US dollars; today's charge before the first bill"""
    billed = c["tenure_months"] > 0
    months = np.where(billed, c["tenure_months"], 1)
    return np.where(billed, c["total_charges"] / months, c["monthly_charges"])


@feature(Real(ge=0))
def charges_ratio(c: Columns) -> Any:
    """Average monthly charge over today's: below 1 after a price rise, 1 where today's charge is 0"""
    today = np.asarray(c["monthly_charges"], dtype=np.float64)
    return np.divide(average_monthly_charges(c), today, out=np.ones_like(today), where=today > 0)


@feature(Integer(0, len(ADD_ONS)))
def add_ons(c: Columns) -> Any:
    """Number of add-on services taken"""
    return sum(np.asarray(c[name] == "Yes", dtype=np.int64) for name in ADD_ONS)


@feature(Flag())
def has_family(c: Columns) -> Any:
    """Lives with a partner or with dependents"""
    return np.asarray(c["has_partner"] | c["has_dependents"])


@feature(Flag())
def is_autopay(c: Columns) -> Any:
    """Pays without doing anything: by bank transfer or credit card"""
    method = c["payment_method"]
    return np.asarray((method == "Bank transfer (automatic)") | (method == "Credit card (automatic)"))


@feature(Flag())
def is_new(c: Columns) -> Any:
    """Joined within the last six months"""
    return np.asarray(c["tenure_months"] <= 6)


FEATURES: tuple[Feature, ...] = (
    *(Feature(each.name, each.kind, each.description, null_as=each.null_as) for each in RAW_FEATURES),
    *DERIVED.values(),
)
"""Every input of the model: the contract's features, then the derived ones."""


def encoded_names(features: tuple[Feature, ...] = FEATURES) -> tuple[str, ...]:
    """The names of `encode`'s columns: a category gives one `name=value` per value, every other feature its own name."""
    return tuple(
        f"{each.name}={value}" if value else each.name
        for each in features
        for value in (each.kind.values if isinstance(each.kind, Category) else ("",))
    )


def derive(columns: Columns) -> dict[str, Any]:
    """`columns` and, after them, every derived feature: name → (n,) array."""
    derived = {name: each.derive(columns) for name, each in DERIVED.items() if each.derive}
    return {name: columns[name] for name in columns.keys()} | derived  # noqa: SIM118 - not every kind of columns iterates


def encode(columns: Columns, names: tuple[str, ...] | None = None) -> Matrix:
    """The model's input: (n, k) float32, one column per name of `encoded_names()`, or per entry of `names`.

    Numbers as they are, flags as 0 and 1, categories one-hot by the contract's own values: nothing is fitted, so that training,
    serving and monitoring cannot encode differently. A null becomes the contract's `null_as`.

    Raises:
        KeyError: a column of `names` is neither in `columns` nor one of its values.
    """
    names = encoded_names() if names is None else names
    rows = len(columns[names[0].partition("=")[0]])
    # Filled a column at a time and then turned: half the time of writing each column with gaps between its values.
    turned = np.empty((len(names), rows), dtype=np.float32)
    for name, values, null_as, start, stop in _plan(names):
        column = columns[name]
        if not values:
            turned[start] = column
            if null_as is not None:
                turned[start, np.isnan(turned[start])] = null_as
        elif isinstance(column, Coded):
            turned[start:stop] = column.codes == column.codes_of(values)
        else:
            for row, value in zip(turned[start:stop], values, strict=True):
                row[:] = column == value
    return np.ascontiguousarray(turned.T)


@cache
def _plan(names: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...], float | None, int, int], ...]:
    """Which rows of the turned matrix come from which feature: (feature, its one-hot values, what a null means, from, to)."""
    null_as = {each.name: each.null_as for each in FEATURES}
    plan: list[tuple[str, tuple[str, ...], float | None, int, int]] = []
    for start, name in enumerate(names):
        feature, is_one_hot, value = name.partition("=")
        if plan and is_one_hot and plan[-1][0] == feature:
            _, values, nothing, first, _ = plan.pop()
            plan.append((feature, (*values, value), nothing, first, start + 1))
        else:
            plan.append((feature, (value,) if is_one_hot else (), null_as.get(feature), start, start + 1))
    return tuple(plan)
