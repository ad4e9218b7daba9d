"""The model's input: how columns become the matrix that every model takes."""

import hashlib
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from churn.contract import DATES, RAW_FEATURES, TIMESTAMP, Category, Columns, Flag, Grouped
from churn.domain.derived import DERIVED, Feature
from churn.domain.kinds import filled
from churn.features import FEATURES

Matrix = npt.NDArray[np.float32]
"""The model's input, (n, k)."""


class Coded:
    """A category column as integer codes: compares like the array of texts that it stands for, twenty times faster.

    `codes` (n,) index into `values`. `NULL` is a null, which differs from itself as NaN does; `UNKNOWN` any other text.
    """

    NULL, UNKNOWN, NONE = -1, -2, -3  # NONE is the code of no row

    def __init__(self, codes: npt.NDArray[np.signedinteger[Any]], values: tuple[str, ...]) -> None:
        self.codes = codes
        self.values = values

    def __eq__(self, value: object) -> Any:
        if value is self:
            return self.codes != self.NULL
        return self.codes == (self.values.index(value) if value in self.values else self.NONE)

    def __ne__(self, value: object) -> Any:
        return ~(self == value)

    __hash__ = None  # type: ignore[assignment]

    def codes_of(self, values: tuple[str, ...]) -> npt.NDArray[np.int16]:
        """The code of each of these texts, (m, 1); `NONE` for one that is not among `self.values`."""
        return _codes_of(values, self.values)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> "Coded":
        return Coded(self.codes[rows], self.values)


@cache
def _codes_of(wanted: tuple[str, ...], values: tuple[str, ...]) -> npt.NDArray[np.int16]:
    return np.array([[values.index(each) if each in values else Coded.NONE] for each in wanted], dtype=np.int16)


def encoded_names(columns: Columns | None = None) -> tuple[str, ...]:
    """The names of the model's inputs: every feature its own, but a category and a `Grouped` feature `name=value` per value.

    Of `Grouped` the values are the commonest in `columns`, the rows to learn from; none without. Where a null is a value, it has
    the input `name=null_as` too.
    """
    return tuple(name for each in FEATURES for name in _names(each, columns))


def _names(feature: Feature, columns: Columns | None) -> list[str]:
    missing = [f"{feature.name}={feature.null_as}"] if isinstance(feature.null_as, str) else []
    match feature.kind:
        case Category(values):
            return [*(f"{feature.name}={value}" for value in values), *missing]
        case Grouped(commonest):
            values = commonest_of(columns[feature.name], commonest, feature.null_as) if columns is not None else ()
            return [*(f"{feature.name}={value}" for value in values), *missing]
        case _:
            return [feature.name, *missing]


def commonest_of(values: Any, count: int, null_as: object = None) -> tuple[str, ...]:
    """At most `count` of the texts (n,), the commonest first, by the alphabet where as common; without nulls and `null_as`."""
    texts = np.asarray(values, dtype=object)
    found = Counter(texts[np.asarray(filled(texts), dtype=bool)].tolist())
    chosen = sorted(found.keys() - {null_as}, key=lambda text: (-found[text], text))
    return tuple(chosen[:count])


def derive(columns: Columns) -> dict[str, Any]:
    """`columns` and, after them, every derived feature: name → (n,) array."""
    derived = {name: each.derive(columns) for name, each in DERIVED.items() if each.derive}
    return {name: columns[name] for name in columns.keys()} | derived  # noqa: SIM118 - not every kind of columns iterates


def days_before(dates: Any, moments: Any) -> npt.NDArray[np.float64]:
    """Days in UTC from each date (n,) to its row's moment (n,), or to the one moment of all: (n,), NaN for a null."""
    gap = _days(moments) - _days(dates)
    return np.where(np.isnat(gap), np.nan, gap.astype(np.int64))


def _days(moments: Any) -> npt.NDArray[np.datetime64]:
    to_numpy = getattr(moments, "to_numpy", None)  # of pandas: to UTC, if it has a zone
    values = to_numpy("datetime64[us]") if to_numpy else np.asarray(moments)
    return values.astype("datetime64[D]")


_NULLABLE_FLAGS = tuple(each.name for each in RAW_FEATURES if isinstance(each.kind, Flag) and each.nullable)


def computable(columns: Columns) -> dict[str, Any]:
    """Those of the columns that features.py and the rules get in another form: name → (n,) floats.

    Dates become days before the row's timestamp, flags that may be null 1, 0 and NaN.
    """
    names = columns.keys()
    days = {name: days_before(columns[name], columns[TIMESTAMP]) for name in DATES if name in names}
    return days | {name: np.asarray(columns[name], dtype=np.float64) for name in _NULLABLE_FLAGS if name in names}


def encode(columns: Columns, names: tuple[str, ...] | None = None) -> Matrix:
    """The model's input: (n, k) float32, one column per name of `encoded_names()`, or per entry of `names`.

    Numbers as they are, flags as 0 and 1, categories one-hot by the contract's own values, `Grouped` by the values that `names`
    has: nothing else is fitted, so that training, serving and monitoring cannot encode differently. A null becomes the contract's
    `null_as`: a number, or 1 in the input `name=null_as` and 0 in the others of the feature.

    Raises:
        KeyError: a column of `names` is neither in `columns` nor one of its values.
    """
    names = encoded_names() if names is None else names
    rows = len(columns[names[0].partition("=")[0]])
    # Filled a column at a time and then turned: half the time of writing each column with gaps between its values.
    turned = np.empty((len(names), rows), dtype=np.float32)
    for name, values, null_as, missing, start, stop in _plan(names):
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
        if missing is not None:
            turned[missing] = ~np.asarray(filled(column), dtype=bool)
    return np.ascontiguousarray(turned.T)


class _Step(NamedTuple):
    """Rows start to stop of the turned matrix, from one feature: its one-hot values, or a number and what a null is there.

    `missing` is the row that says where the feature is null.
    """

    feature: str
    values: tuple[str, ...]
    null_as: float | None
    missing: int | None
    start: int
    stop: int


@cache
def _plan(names: tuple[str, ...]) -> tuple[_Step, ...]:
    null_as = {each.name: each.null_as for each in FEATURES}
    plan: list[_Step] = []
    for start, name in enumerate(names):
        feature, is_one_hot, value = name.partition("=")
        null = null_as.get(feature)
        missing = start if is_one_hot and value == null else None
        last = plan[-1] if plan and plan[-1].feature == feature else None
        if last and is_one_hot and (last.values or missing is not None):
            values = (*last.values, value) if last.values else ()
            plan[-1] = last._replace(values=values, missing=missing if missing is not None else last.missing, stop=start + 1)
        elif is_one_hot:
            plan.append(_Step(feature, (value,), None, missing, start, start + 1))
        else:
            plan.append(_Step(feature, (), 0.0 if isinstance(null, str) else null, None, start, start + 1))
    return tuple(plan)


def contract_sha256() -> str:
    """A digest of what the model's inputs mean: two versions with the same digest take the same columns."""
    kinds = [f"{each.name}: {each.kind}" for each in FEATURES]
    return hashlib.sha256("\n".join([*kinds, *encoded_names()]).encode()).hexdigest()
