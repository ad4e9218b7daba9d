"""The contract: every raw column, what it means and which values it may hold. Everything else derives from these tables.

To swap the dataset, replace the tables (`FEATURE_TTL` to `PROTECTED`), features.py's functions and data/raw/, as docs/adopting.md
tells. What the tables are made of is in kinds.py. Standard library only, so that every deployable can import it.

The shipped table is IBM's Telco customer churn sample: one row is one customer at the end of a month, `churned` says
whether that customer left within the month that followed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import reduce

from churn.domain.kinds import (
    Array,
    Category,
    Column,
    Columns,
    Date,
    Flag,
    Grouped,
    Integer,
    Kind,
    Real,
    Role,
    Rule,
    Slice,
    Text,
    Timestamp,
    Violation,
    filled,
)

__all__ = [
    "BY_NAME",
    "COLUMNS",
    "DATES",
    "ENTITY",
    "FEATURE_TTL",
    "LABEL",
    "LABEL_HORIZON",
    "PROTECTED",
    "RAW_FEATURES",
    "RULES",
    "SCORED",
    "SLICES",
    "TIMESTAMP",
    "Array",
    "Category",
    "Column",
    "Columns",
    "Date",
    "Flag",
    "Grouped",
    "Integer",
    "Kind",
    "Real",
    "Role",
    "Rule",
    "Slice",
    "Text",
    "Timestamp",
    "Violation",
    "broken",
    "contradictions",
    "filled",
    "of_role",
]

FEATURE_TTL = timedelta(days=3650)
"""How old a stored feature may be and still be served as fresh. Ten years, because the shipped snapshot never moves: with a
source that is refreshed daily or monthly, two refresh intervals are a good value."""

LABEL_HORIZON = timedelta(days=30)
"""The label is what happened within this time after the row. Before it is over, the label is not known."""

SNAPSHOT = datetime(2026, 1, 1, tzinfo=UTC)
"""The shipped file is one snapshot and carries no date: every row of it gets this one. Rows from production carry their own."""

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
        default=SNAPSHOT,
        description="When the row was true",
    ),
    Column(name="gender", kind=Category(("Female", "Male")), fixed=True, description="Gender as the customer gave it"),
    Column(name="is_senior", kind=Flag("1", "0"), source="SeniorCitizen", fixed=True, description="65 years or older"),
    Column(name="has_partner", kind=Flag(), source="Partner", description="Lives with a partner"),
    Column(name="has_dependents", kind=Flag(), source="Dependents", description="Lives with children or parents"),
    Column(
        name="tenure_months",
        kind=Integer(0, 720),
        grows_by=1,
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
        grows_by="monthly_charges",
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


def _blank_means_not_billed_yet(c: Columns) -> Array:
    """total_charges is blank exactly where tenure_months is 0"""
    return (c["total_charges"] != c["total_charges"]) == (c["tenure_months"] == 0)


def _no_internet_no_add_ons(c: Columns) -> Array:
    """every add-on is 'No internet service' exactly where internet_service is No"""
    offline = c["internet_service"] == "No"
    agrees = (offline == (c[name] == "No internet service") for name in ADD_ONS)
    return reduce(lambda left, right: left & right, agrees)


def _no_phone_no_lines(c: Columns) -> Array:
    """multiple_lines is 'No phone service' exactly where has_phone is No"""
    return (c["has_phone"] == False) == (c["multiple_lines"] == "No phone service")  # noqa: E712 - elementwise


def _billed_as_charged(c: Columns) -> Array:
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

SLICES: tuple[Slice, ...] = (
    Slice("term"),
    Slice("internet_service"),
    Slice("is_senior"),
    Slice("tenure_months", edges=(7, 25, 49)),
)
"""Groups on which a candidate may not be worse than the champion by more than the gate allows."""

PROTECTED: tuple[str, ...] = ("gender", "is_senior")
"""Columns by which the fairness table compares how often, and how rightly, customers are flagged."""


def of_role(role: Role) -> tuple[Column, ...]:
    """The columns with that role, in the contract's order."""
    return tuple(column for column in COLUMNS if column.role is role)


def _only(role: Role) -> str:
    names = [column.name for column in of_role(role)]
    if len(names) != 1:
        raise ValueError(
            f"contract.py: {len(names)} columns have the role {role} ({', '.join(names) or 'none'}); give it to exactly one"
        )
    return names[0]


ENTITY, TIMESTAMP, LABEL = _only(Role.ENTITY), _only(Role.TIMESTAMP), _only(Role.LABEL)
RAW_FEATURES = of_role(Role.FEATURE)
DATES = tuple(each.name for each in RAW_FEATURES if isinstance(each.kind, Date))
SCORED = (*of_role(Role.ENTITY), *(of_role(Role.TIMESTAMP) if DATES else ()), *RAW_FEATURES)
"""The columns of a row to score. The timestamp, from which dates are counted back, may be left out: then it is the present."""
BY_NAME = {each.name: each for each in COLUMNS}

if len(BY_NAME) != len(COLUMNS):
    raise ValueError("contract.py: two columns have the same name; rename one")
if _unknown := {*(each.column for each in SLICES), *PROTECTED} - {each.name for each in RAW_FEATURES}:
    raise ValueError(
        f"contract.py: SLICES or PROTECTED name {', '.join(sorted(_unknown))}; they may name the contract's features only"
    )


def broken(columns: Columns) -> Iterator[tuple[str, str, Array]]:
    """What rows break, elementwise: (column or rule, what must hold, boolean per row), for each rule with a broken row.

    `columns` holds any part of the contract's columns, dates as days before the row; a rule between columns is checked only if
    every row must keep it.
    """
    for name, values in columns.items():
        if each := BY_NAME.get(name):
            holds = each.kind.holds(values)
            bad = ~holds & filled(values) if each.nullable else ~holds
            if bad.any():
                yield name, str(each.kind), bad
    yield from contradictions(columns)


def contradictions(columns: Columns) -> Iterator[tuple[str, str, Array]]:
    """The part of `broken` that is about rules between columns."""
    for rule in RULES:
        if rule.mostly == 1.0 and (bad := ~rule.holds(columns)).any():
            yield rule.name, rule.description, bad
