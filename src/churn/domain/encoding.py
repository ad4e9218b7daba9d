"""The model's input: how columns become the matrix that every model takes."""

import hashlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from churn.contract import Category, Columns
from churn.domain.derived import DERIVED, Feature
from churn.features import FEATURES

Matrix = npt.NDArray[np.float32]
"""The model's input, (n, k)."""


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


def contract_sha256() -> str:
    """A digest of what the model's inputs mean: two versions with the same digest take the same columns."""
    kinds = [f"{each.name}: {each.kind}" for each in FEATURES]
    return hashlib.sha256("\n".join([*kinds, *encoded_names()]).encode()).hexdigest()
