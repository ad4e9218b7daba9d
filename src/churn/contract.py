"""The contract: every raw column, what it means and which values it may hold. Everything else derives from this table.

To swap the dataset, replace the tables below (`COLUMNS`, the rules, `SLICES`, `PROTECTED`, `FEATURE_TTL`), features.py and
data/raw/. Standard library only, so that every deployable can import it.

The shipped table is IBM's Telco customer churn sample: one row is one customer at the end of a month, `churned` says
whether that customer left within the month that followed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    """Any text: identifiers."""

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return values == values  # noqa: PLR0124 - only a null differs from itself

    def __str__(self) -> str:
        return "text"


@dataclass(frozen=True)
class Timestamp:
    """A moment in UTC."""

    def holds(self, values: Any) -> Any:
        """One boolean per value; a null does not hold."""
        return values == values  # noqa: PLR0124 - only a null differs from itself

    def __str__(self) -> str:
        return "UTC timestamp"


Kind = Integer | Real | Category | Flag | Text | Timestamp


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the contract.

    `source` is the raw file's own name for it. `null_as` is the number that a null stands for in the model's input (None: nulls
    are refused). `default` fills a column that the raw file does not have at all. `mostly` is the share of rows that must keep
    the kind's rule for a table to be accepted.
    """

    name: str
    kind: Kind
    description: str
    source: str
    role: Role = Role.FEATURE
    null_as: float | None = None
    default: datetime | None = None
    mostly: float = 1.0

    @property
    def nullable(self) -> bool:
        """True if a null is an accepted value."""
        return self.null_as is not None


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


def _within(kind: Integer | Real, values: Any) -> Any:
    holds = values == values  # noqa: PLR0124 - only a null differs from itself
    if kind.ge is not None:
        holds = holds & (values >= kind.ge)
    if kind.le is not None:
        holds = holds & (values <= kind.le)
    return holds


def _bounds(kind: Integer | Real) -> str:
    parts = [f"≥ {kind.ge:g}" if kind.ge is not None else "", f"≤ {kind.le:g}" if kind.le is not None else ""]
    return " and ".join(part for part in parts if part)


SNAPSHOT = datetime(2026, 1, 1, tzinfo=UTC)
"""The shipped file is one snapshot and carries no date: every row of it gets this one. Rows from production carry their own."""

FEATURE_TTL = timedelta(days=3650)
"""How old a stored feature may be and still be served as fresh. Ten years, because the shipped snapshot never moves: with a
source that is refreshed daily or monthly, two refresh intervals are a good value."""

_ADD_ON = Category(("Yes", "No", "No internet service"))

COLUMNS: tuple[Column, ...] = (
    Column(
        name="customer_id",
        kind=Text(),
        role=Role.ENTITY,
        source="customerID",
        description="Identifies the customer for good",
    ),
    Column(
        name="event_timestamp",
        kind=Timestamp(),
        role=Role.TIMESTAMP,
        source="event_timestamp",
        default=SNAPSHOT,
        description="When the row was true",
    ),
    Column(name="gender", kind=Category(("Female", "Male")), source="gender", description="Gender as the customer gave it"),
    Column(name="is_senior", kind=Flag("1", "0"), source="SeniorCitizen", description="65 years or older"),
    Column(name="has_partner", kind=Flag(), source="Partner", description="Lives with a partner"),
    Column(name="has_dependents", kind=Flag(), source="Dependents", description="Lives with children or parents"),
    Column(
        name="tenure_months",
        kind=Integer(0, 720),
        source="tenure",
        description="Whole months since the customer joined; 0 until the first bill",
    ),
    Column(name="has_phone", kind=Flag(), source="PhoneService", description="Has a telephone line"),
    Column(
        name="multiple_lines",
        kind=Category(("Yes", "No", "No phone service")),
        source="MultipleLines",
        description="Has more than one telephone line",
    ),
    Column(
        name="internet_service",
        kind=Category(("DSL", "Fiber optic", "No")),
        source="InternetService",
        description="Kind of internet access",
    ),
    Column(name="online_security", kind=_ADD_ON, source="OnlineSecurity", description="Add-on: online security"),
    Column(name="online_backup", kind=_ADD_ON, source="OnlineBackup", description="Add-on: online backup"),
    Column(name="device_protection", kind=_ADD_ON, source="DeviceProtection", description="Add-on: device protection"),
    Column(name="tech_support", kind=_ADD_ON, source="TechSupport", description="Add-on: technical support"),
    Column(name="streaming_tv", kind=_ADD_ON, source="StreamingTV", description="Add-on: streams television"),
    Column(name="streaming_movies", kind=_ADD_ON, source="StreamingMovies", description="Add-on: streams films"),
    Column(
        name="term",
        kind=Category(("Month-to-month", "One year", "Two year")),
        source="Contract",
        description="Term of the customer's contract",
    ),
    Column(name="is_paperless", kind=Flag(), source="PaperlessBilling", description="Gets bills by e-mail"),
    Column(
        name="payment_method",
        kind=Category(("Electronic check", "Mailed check", "Bank transfer (automatic)", "Credit card (automatic)")),
        source="PaymentMethod",
        description="How the customer pays",
    ),
    Column(
        name="monthly_charges",
        kind=Real(0, 1000),
        source="MonthlyCharges",
        description="Current monthly bill, US dollars",
    ),
    Column(
        name="total_charges",
        kind=Real(0, 1_000_000),
        source="TotalCharges",
        null_as=0.0,
        description="Billed since joining, US dollars; blank for a customer who has not been billed yet (tenure 0)",
    ),
    Column(
        name="churned",
        kind=Flag(),
        role=Role.LABEL,
        source="Churn",
        description="Left within the month that followed",
    ),
)

ADD_ONS = ("online_security", "online_backup", "device_protection", "tech_support", "streaming_tv", "streaming_movies")


def _blank_means_not_billed_yet(c: Columns) -> Any:
    """total_charges is blank exactly where tenure_months is 0"""
    return (c["total_charges"] != c["total_charges"]) == (c["tenure_months"] == 0)


def _no_internet_no_add_ons(c: Columns) -> Any:
    """every add-on is 'No internet service' exactly where internet_service is No"""
    offline = c["internet_service"] == "No"
    agrees = (offline == (c[name] == "No internet service") for name in ADD_ONS)
    return reduce(lambda left, right: left & right, agrees)


def _no_phone_no_lines(c: Columns) -> Any:
    """multiple_lines is 'No phone service' exactly where has_phone is No"""
    return (c["has_phone"] == False) == (c["multiple_lines"] == "No phone service")  # noqa: E712 - elementwise


def _billed_as_charged(c: Columns) -> Any:
    """total_charges is within 30 % of tenure_months × monthly_charges"""
    expected = c["tenure_months"] * c["monthly_charges"]
    gap = c["total_charges"] - expected
    return (c["total_charges"] != c["total_charges"]) | ((gap <= 0.3 * expected) & (-gap <= 0.3 * expected))


RULES: tuple[Rule, ...] = tuple(
    Rule(function.__name__.removeprefix("_"), str(function.__doc__), mostly, function)
    for function, mostly in (
        (_blank_means_not_billed_yet, 1.0),
        (_no_internet_no_add_ons, 1.0),
        (_no_phone_no_lines, 1.0),
        (_billed_as_charged, 0.95),
    )
)

SLICES = (
    Slice("term"),
    Slice("internet_service"),
    Slice("is_senior"),
    Slice("tenure_months", edges=(7, 25, 49)),
)
"""Groups on which a candidate may not be worse than the champion by more than the gate allows."""

PROTECTED = ("gender", "is_senior")
"""Columns by which the fairness table compares how often, and how rightly, customers are flagged."""


def of_role(role: Role) -> tuple[Column, ...]:
    """The columns with that role, in the contract's order."""
    return tuple(column for column in COLUMNS if column.role is role)


ENTITY, TIMESTAMP, LABEL = (of_role(role)[0].name for role in (Role.ENTITY, Role.TIMESTAMP, Role.LABEL))
RAW_FEATURES = of_role(Role.FEATURE)


BY_NAME = {each.name: each for each in COLUMNS}


def broken(columns: Columns) -> Iterator[tuple[str, str, Any]]:
    """What rows break, elementwise: (column or rule, what must hold, boolean per row), for each rule with a broken row.

    `columns` holds any part of the contract's columns; a rule between columns is judged only if every row must keep it.
    """
    for name, values in columns.items():
        if each := BY_NAME.get(name):
            holds = each.kind.holds(values)
            bad = ~(holds | (values != values)) if each.nullable else ~holds  # noqa: PLR0124 - only a null differs from itself
            if bad.any():
                yield name, str(each.kind), bad
    for rule in RULES:
        if rule.mostly == 1.0 and (bad := ~rule.holds(columns)).any():
            yield rule.name, rule.description, bad


@dataclass(frozen=True)
class Violation:
    """Rows that break one rule: how many, and the first of them as (entity, value)."""

    subject: str
    rule: str
    count: int
    first: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        shown = "; ".join(f"{entity}: {value}" for entity, value in self.first[:3])
        return f"{self.subject}: {self.count} {'row' if self.count == 1 else 'rows'} not {self.rule} (first: {shown})"
