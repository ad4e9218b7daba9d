"""The tables of the contract that the tests run on: tests/support/copied.py puts them in the place of the user's."""

from datetime import UTC, datetime, timedelta
from functools import reduce

from churn.domain.kinds import Array, Category, Column, Columns, Flag, Integer, Real, Role, Rule, Slice, Text, Timestamp

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
    Column(name="gender", kind=Category(("Female", "Male")), description="Gender as the customer gave it"),
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
