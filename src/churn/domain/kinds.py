"""What a contract is made of: roles, kinds, columns, rules, slices. The tables themselves are in contract.py.

Standard library only. Import these names from `churn.contract`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import reduce
from operator import or_
from typing import Any, Protocol


class Columns(Protocol):
    """Column name → array of n values: a DataFrame, or a dict of NumPy arrays or of anything that compares elementwise."""

    def __getitem__(self, name: str, /) -> Any: ...

    def keys(self) -> Any: ...  # noqa: D102 - of a mapping

    def items(self) -> Any: ...  # noqa: D102 - of a mapping


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

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return _within(self, values)

    def __str__(self) -> str:
        return f"integer {_bounds(self)}".strip()


@dataclass(frozen=True)
class Real:
    """A number within [ge, le]."""

    ge: float | None = None
    le: float | None = None

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return _within(self, values)

    def __str__(self) -> str:
        return f"real {_bounds(self)}".strip()


@dataclass(frozen=True)
class Category:
    """One of a few texts, as the raw file spells them."""

    values: tuple[str, ...]

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return reduce(or_, (values == each for each in self.values))

    def __str__(self) -> str:
        return "one of " + ", ".join(self.values)


@dataclass(frozen=True)
class Flag:
    """True or false; `yes` and `no` are how the raw file spells them."""

    yes: str = "Yes"
    no: str = "No"

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return (values == True) | (values == False)  # noqa: E712 - elementwise on arrays

    def __str__(self) -> str:
        return f"{self.yes} or {self.no}"


@dataclass(frozen=True)
class Text:
    """Identifiers: exact text of 1 to 128 characters, without control characters and blanks at either end.

    A whole number stands for its digits; a float of 2^53 or more does not, for it may stand for several whole numbers.
    """

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return _filled(values)

    def __str__(self) -> str:
        return "text of 1 to 128 characters without control characters and blanks at either end"


@dataclass(frozen=True)
class Timestamp:
    """A moment in UTC: a timestamp, a date or text in ISO 8601. A number is none: nothing says its unit."""

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return _filled(values)

    def __str__(self) -> str:
        return "UTC timestamp"


Kind = Integer | Real | Category | Flag | Text | Timestamp

KINDS_OF: dict[Role, tuple[type[Kind], ...]] = {
    Role.ENTITY: (Text,),
    Role.TIMESTAMP: (Timestamp,),
    Role.LABEL: (Flag,),
    Role.FEATURE: (Integer, Real, Category, Flag),
}
"""Which kinds a column of each role may have."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the contract.

    `source` is the raw file's own name for it, by default `name`; of the entity it may be several names, whose values are joined
    by ":". `null_as` is the number that a null stands for in the model's input (None: nulls are refused). `default` fills a
    timestamp column that the raw file does not have at all; a null in one that it has is refused.
    `mostly` is the share of rows that must keep the kind's range or values for a table to be accepted; what cannot be read as
    the kind is always refused.

    Raises:
        ValueError: the kind does not fit the role, the model's input has no value for a null, or `default` is no timestamp's.
    """

    name: str
    kind: Kind
    description: str
    source: str | tuple[str, ...] = ""
    role: Role = Role.FEATURE
    null_as: float | None = None
    default: datetime | None = None
    mostly: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.name)
        if type(self.kind) not in (allowed := KINDS_OF[self.role]):
            names = " or ".join(each.__name__ for each in allowed)
            raise ValueError(
                f"contract.py: {self.name}: {type(self.kind).__name__} cannot be the kind of the {self.role}; use {names}"
            )
        if self.nullable and not (self.role is Role.FEATURE and isinstance(self.kind, Integer | Real)):
            raise ValueError(
                f"contract.py: {self.name}: null_as is for numbers; give the missing value a text of its own in the raw data, "
                f"and list it: {self.name} then is a Category"
            )
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
    holds: Callable[[Columns], Any]


@dataclass(frozen=True)
class Slice:
    """Rows grouped by a column for evaluation: by value, or by the bands that `edges` cut: [.., e1), [e1, e2), …"""

    column: str
    edges: tuple[float, ...] = ()


def _filled(values: Any) -> Any:
    """One boolean per value: NaN and NaT differ from themselves, but an array of objects holds None equal to None."""
    filled = values == values  # noqa: PLR0124 - elementwise on arrays
    # Any other array is compared with None object by object, a hundred times slower.
    return filled & (values != None) if getattr(values, "dtype", "object") == "object" else filled  # noqa: E711


def _within(kind: Integer | Real, values: Any) -> Any:
    holds = _filled(values)
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
