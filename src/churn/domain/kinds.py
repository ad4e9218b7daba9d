"""What a contract is made of: roles, kinds, columns, rules, slices. The tables themselves are in contract.py.

Standard library only. Import these names from `churn.contract`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class Array(Protocol):  # noqa: PLW1641 - arrays have no hash
    """One value per row: a NumPy array or a column of a DataFrame. Operators work elementwise."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __array__(self) -> "np.ndarray[Any, np.dtype[Any]]": ...
    def __eq__(self, other: object, /) -> "Array": ...  # type: ignore[override]
    def __ne__(self, other: object, /) -> "Array": ...  # type: ignore[override]
    def __lt__(self, other: Any, /) -> "Array": ...
    def __le__(self, other: Any, /) -> "Array": ...
    def __gt__(self, other: Any, /) -> "Array": ...
    def __ge__(self, other: Any, /) -> "Array": ...
    def __and__(self, other: Any, /) -> "Array": ...
    def __or__(self, other: Any, /) -> "Array": ...
    def __invert__(self) -> "Array": ...
    def __neg__(self) -> "Array": ...
    def __add__(self, other: Any, /) -> "Array": ...
    def __radd__(self, other: Any, /) -> "Array": ...
    def __sub__(self, other: Any, /) -> "Array": ...
    def __rsub__(self, other: Any, /) -> "Array": ...
    def __mul__(self, other: Any, /) -> "Array": ...
    def __rmul__(self, other: Any, /) -> "Array": ...
    def __truediv__(self, other: Any, /) -> "Array": ...
    def __rtruediv__(self, other: Any, /) -> "Array": ...
    def __pow__(self, other: Any, /) -> "Array": ...
    def any(self) -> Any: ...  # noqa: D102 - as NumPy's
    def all(self) -> Any: ...  # noqa: D102 - as NumPy's


class Columns(Protocol):
    """Column name → array of n values: a DataFrame, or a dict of NumPy arrays or of anything that compares elementwise."""

    def __getitem__(self, name: str, /) -> Array: ...

    def keys(self) -> Iterable[Any]: ...  # noqa: D102 - of a mapping

    def items(self) -> Iterable[tuple[Any, Any]]: ...  # noqa: D102 - of a mapping


class Role(StrEnum):
    """What a column is for."""

    ENTITY = "entity"
    TIMESTAMP = "timestamp"
    LABEL = "label"
    FEATURE = "feature"


@dataclass(frozen=True)
class Integer:
    """A whole number within [ge, le]."""

    ge: int | None = None
    le: int | None = None

    def holds(self, values: Array) -> Array:
        """One boolean per value; a null does not hold."""
        return _within(self, values)

    def __str__(self) -> str:
        return f"integer {_bounds(self)}".strip()


@dataclass(frozen=True)
class Real:
    """A number within [ge, le]."""

    ge: float | None = None
    le: float | None = None

    def holds(self, values: Array) -> Array:
        """One boolean per value; a null does not hold."""
        return _within(self, values)

    def __str__(self) -> str:
        return f"real {_bounds(self)}".strip()


@dataclass(frozen=True)
class Category:
    """One of a few texts, as the raw file spells them."""

    values: tuple[str, ...]

    def holds(self, values: Array) -> Array:
        """One boolean per value; a null does not hold."""
        return reduce(or_, (values == each for each in self.values))

    def __str__(self) -> str:
        return "one of " + ", ".join(self.values)


@dataclass(frozen=True)
class Flag:
    """True or false; `yes` and `no` are how the raw file spells them."""

    yes: str = "Yes"
    no: str = "No"

    def holds(self, values: Array) -> Array:
        """One boolean per value; a null does not hold."""
        return (values == True) | (values == False)  # noqa: E712 - elementwise on arrays

    def __str__(self) -> str:
        return f"{self.yes} or {self.no}"


@dataclass(frozen=True)
class Text:
    """Identifiers: exact text of 1 to 128 characters, without control characters and blanks at either end.

    A whole number stands for its digits; a float of 2^53 or more does not, for it may stand for several whole numbers.
    """

    def holds(self, values: Array) -> Array:
        """One boolean per value; a null does not hold."""
        return filled(values)

    def __str__(self) -> str:
        return "text of 1 to 128 characters without control characters and blanks at either end"


@dataclass(frozen=True)
class Grouped(Text):
    """Text with many different values: the `commonest` ones among the rows that a version learns from are inputs of its model.

    Every other value is in the group of the others. Which texts are accepted is as for `Text`.

    Raises:
        ValueError: `commonest` is less than 1.
    """

    commonest: int = 20

    def __post_init__(self) -> None:
        if self.commonest < 1:
            raise ValueError(f"contract.py: Grouped: expected commonest of at least 1, got {self.commonest}")


@dataclass(frozen=True)
class Date:
    """A day in UTC, on or before the row's own. features.py, the rules and the model get the number of days in between."""

    def holds(self, values: Any) -> Any:
        """One boolean per value, a number of days before the row; a null does not hold."""
        return filled(values) & (values >= 0)

    def __str__(self) -> str:
        return "date, not after the row's timestamp"


@dataclass(frozen=True)
class Timestamp:
    """A moment in UTC: a timestamp, a date or text in ISO 8601. A number is none: nothing says its unit."""

    def holds(self, values: Array) -> Array:
        """One boolean per value; a null does not hold."""
        return filled(values)

    def __str__(self) -> str:
        return "UTC timestamp"


Kind = Integer | Real | Category | Flag | Date | Grouped | Text | Timestamp

KINDS_OF: dict[Role, tuple[type[Kind], ...]] = {
    Role.ENTITY: (Text,),
    Role.TIMESTAMP: (Timestamp,),
    Role.LABEL: (Flag,),
    Role.FEATURE: (Integer, Real, Category, Flag, Date, Grouped),
}
"""Which kinds a column of each role may have."""

_CLASSES = "the models predict whether a customer churns, nothing else"
_INSTEAD: dict[tuple[Role, type[Kind]], str] = {
    (Role.FEATURE, Text): "free text is no input of the models: derive numbers or a category from it in the source, or leave "
    "the column out; Grouped is for names with many values",
    (Role.FEATURE, Timestamp): "a moment is no input of the models: Date gives the days since it",
    (Role.LABEL, Category): f"{_CLASSES}: make it a yes/no column in the source, one class against all others",
    (Role.LABEL, Integer): f"{_CLASSES}: make it a yes/no column in the source, such as whether it is above a limit",
    (Role.LABEL, Real): f"{_CLASSES}: make it a yes/no column in the source, such as whether it is above a limit",
}
"""What to do instead, where it is not obvious."""


NullAs = float | str | None
"""What a null means: see `Column`."""


def check_null_as(where: str, kind: Kind, null_as: NullAs) -> None:
    """Check that `null_as` can stand for a null of the kind.

    Raises:
        ValueError: it is a text for a number, a number for a text, or a value that the kind has.
    """
    match kind:
        case Integer() | Real() | Date():
            fits, expected = isinstance(null_as, int | float), "a number"
        case Category(values):
            fits, expected = isinstance(null_as, str) and null_as not in ("", *values), "a text that is none of its values"
        case _:
            fits, expected = isinstance(null_as, str) and null_as != "", "a text, such as 'missing'"
    if null_as is not None and not fits:
        raise ValueError(f"{where}: null_as: expected {expected} for {type(kind).__name__}, got {null_as!r}")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the contract.

    `source` is the raw file's own name for it, by default `name`; of the entity it may be several names, whose values are joined
    by ":". `null_as` is what a null means (None: nulls are refused): the number that stands for it in the model's input, or for
    a category, a flag and `Grouped` the text that names an input of its own: `plan=missing`. `default` fills a timestamp column
    that the raw file does not have at all; a null in one that it has is refused. `mostly` is the share of rows that must keep
    the kind's range or values for a table to be accepted; what cannot be read as the kind is always refused.
    Only simulated months (demo/) use the rest: `grows_by` is what a month adds, a number or the name of the column whose value is
    added; a `fixed` value never changes.

    Raises:
        ValueError: the kind does not fit the role, `null_as` does not fit the kind, `default` is no timestamp's, or several
            sources are no entity's.
    """

    name: str
    kind: Kind
    description: str
    source: str | tuple[str, ...] = ""
    role: Role = Role.FEATURE
    null_as: NullAs = None
    default: datetime | None = None
    mostly: float = 1.0
    grows_by: float | str | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.name)
        if type(self.kind) not in (allowed := KINDS_OF[self.role]):
            names = " or ".join(each.__name__ for each in allowed)
            why = f": {instead}" if (instead := _INSTEAD.get((self.role, type(self.kind)))) else ""
            raise ValueError(
                f"contract.py: {self.name}: {type(self.kind).__name__} cannot be the kind of the {self.role}; use {names}{why}"
            )
        if self.nullable and self.role is not Role.FEATURE:
            raise ValueError(f"contract.py: {self.name}: null_as is for features only; fill the {self.role} in the raw data")
        check_null_as(f"contract.py: {self.name}", self.kind, self.null_as)
        if isinstance(self.source, tuple) and (self.role is not Role.ENTITY or len(set(self.source)) < 2):
            raise ValueError(f"contract.py: {self.name}: expected several source names of the entity, or one; got {self.source}")
        if self.default is not None and self.role is not Role.TIMESTAMP:
            raise ValueError(f"contract.py: {self.name}: default is for the timestamp only; add the column to the raw data")

    @property
    def nullable(self) -> bool:
        """True if a null is an accepted value."""
        return self.null_as is not None

    @property
    def sources(self) -> tuple[str, ...]:
        """The raw file's own names for it: one, or those of the parts of a composite key."""
        return self.source if isinstance(self.source, tuple) else (self.source,)


@dataclass(frozen=True)
class Rule:
    """What must hold between the columns of a row; `mostly` is the share of rows that must keep it."""

    name: str
    description: str
    mostly: float
    holds: Callable[[Columns], Array]


@dataclass(frozen=True)
class Slice:
    """Rows grouped by a column for evaluation: by value, or by the bands that `edges` cut: [.., e1), [e1, e2), …"""

    column: str
    edges: tuple[float, ...] = ()


def filled(values: Array) -> Array:
    """One boolean per value, False for a null: NaN and NaT differ from themselves, but an array holds None equal to None."""
    same = values == values  # noqa: PLR0124 - elementwise on arrays
    # Any other array is compared with None object by object, a hundred times slower.
    return same & (values != None) if getattr(values, "dtype", "object") == "object" else same  # noqa: E711


def _within(kind: Integer | Real, values: Array) -> Array:
    holds = filled(values)
    if kind.ge is not None:
        holds = holds & (values >= kind.ge)
    if kind.le is not None:
        holds = holds & (values <= kind.le)
    return holds


def _bounds(kind: Integer | Real) -> str:
    parts = [f"≥ {kind.ge:g}" if kind.ge is not None else "", f"≤ {kind.le:g}" if kind.le is not None else ""]
    return " and ".join(part for part in parts if part)


@dataclass(frozen=True)
class Violation:
    """Rows that break one rule: how many (`of` all), the first of them as (entity, value), and what they have instead.

    An empty value is not shown.
    """

    subject: str
    rule: str
    count: int
    first: tuple[tuple[str, str], ...] = ()
    got: str = "another value"
    of: int | None = None

    def __str__(self) -> str:
        rows = f"{self.count} of {self.of} rows" if self.of else f"{self.count} {'row' if self.count == 1 else 'rows'}"
        shown = [f"{entity}: {value}" if value else entity for entity, value in self.first[:3]]
        first = f" (first: {'; '.join(shown)})" if shown else ""
        return f"{self.subject}: expected {self.rule}, got {self.got} in {rows}{first}"
