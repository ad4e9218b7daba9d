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

_EXTRA = Category(("Yes", "No", "No pool"))

COLUMNS: tuple[Column, ...] = (
    Column(
        name="customer_id",
        kind=Text(),
        role=Role.ENTITY,
        source="MemberNo",
        description="Identifies the customer for good",
    ),
    Column(
        name="event_timestamp",
        kind=Timestamp(),
        role=Role.TIMESTAMP,
        default=SNAPSHOT,
        description="When the row was true",
    ),
    Column(name="language", kind=Category(("Danish", "Dutch")), description="Language of the letters"),
    Column(name="is_student", kind=Flag("1", "0"), source="Student", description="Has a student card"),
    Column(name="is_duo", kind=Flag(), source="Duo", description="Comes with a partner"),
    Column(name="has_children", kind=Flag(), source="Children", description="Comes with children"),
    Column(
        name="member_months",
        kind=Integer(0, 720),
        source="Membership",
        description="Whole months since the customer joined; 0 until the first bill",
    ),
    Column(name="has_locker", kind=Flag(), source="Locker", description="Has a locker"),
    Column(
        name="second_locker",
        kind=Category(("Yes", "No", "No locker")),
        source="SecondLocker",
        description="Has more than one locker",
    ),
    Column(
        name="pool_access",
        kind=Category(("Day pass", "Full pass", "No")),
        source="Pool",
        description="Kind of access to the pool",
    ),
    Column(name="swim_class", kind=_EXTRA, source="SwimClass", description="Extra: swimming class"),
    Column(name="sauna", kind=_EXTRA, source="Sauna", description="Extra: sauna"),
    Column(name="towel_service", kind=_EXTRA, source="TowelService", description="Extra: towels"),
    Column(name="coaching", kind=_EXTRA, source="Coaching", description="Extra: coaching"),
    Column(name="aqua_gym", kind=_EXTRA, source="AquaGym", description="Extra: gymnastics in the pool"),
    Column(name="diving", kind=_EXTRA, source="Diving", description="Extra: diving"),
    Column(
        name="commitment",
        kind=Category(("Monthly", "Season", "Two seasons")),
        source="Commitment",
        description="How long the customer is bound",
    ),
    Column(name="gets_newsletter", kind=Flag(), source="Newsletter", description="Gets the newsletter"),
    Column(
        name="paid_by",
        kind=Category(("Online invoice", "Paper invoice", "Direct debit (automatic)", "Card (automatic)")),
        source="PaidBy",
        description="How the customer pays",
    ),
    Column(
        name="monthly_fee",
        kind=Real(0, 1000),
        source="MonthlyFee",
        description="Current monthly fee, euros",
    ),
    Column(
        name="total_fees",
        kind=Real(0, 1_000_000),
        source="TotalFees",
        null_as=0.0,
        description="Billed since joining, euros; blank for a customer who has not been billed yet (Membership 0)",
    ),
    Column(
        name="churned",
        kind=Flag(),
        role=Role.LABEL,
        source="Cancelled",
        description="Left within the month that followed",
    ),
)

EXTRAS = ("swim_class", "sauna", "towel_service", "coaching", "aqua_gym", "diving")


def _blank_means_not_billed_yet(c: Columns) -> Array:
    """total_fees is blank exactly where member_months is 0"""
    return (c["total_fees"] != c["total_fees"]) == (c["member_months"] == 0)


def _no_pool_no_extras(c: Columns) -> Array:
    """every extra is 'No pool' exactly where pool_access is No"""
    offline = c["pool_access"] == "No"
    agrees = (offline == (c[name] == "No pool") for name in EXTRAS)
    return reduce(lambda left, right: left & right, agrees)


def _no_locker_no_second(c: Columns) -> Array:
    """second_locker is 'No locker' exactly where has_locker is No"""
    return (c["has_locker"] == False) == (c["second_locker"] == "No locker")  # noqa: E712 - elementwise


def _billed_as_charged(c: Columns) -> Array:
    """total_fees is within 30 % of member_months × monthly_fee"""
    expected = c["member_months"] * c["monthly_fee"]
    gap = c["total_fees"] - expected
    return (c["total_fees"] != c["total_fees"]) | ((gap <= 0.3 * expected) & (-gap <= 0.3 * expected))


RULES: tuple[Rule, ...] = tuple(
    Rule(function.__name__.removeprefix("_"), str(function.__doc__), mostly, function)
    for function, mostly in (
        (_blank_means_not_billed_yet, 1.0),
        (_no_pool_no_extras, 1.0),
        (_no_locker_no_second, 1.0),
        (_billed_as_charged, 0.95),
    )
)

SLICES: tuple[Slice, ...] = (
    Slice("commitment"),
    Slice("pool_access"),
    Slice("is_student"),
    Slice("member_months", edges=(7, 25, 49)),
)
"""Groups on which a candidate may not be worse than the champion by more than the gate allows."""

PROTECTED: tuple[str, ...] = ("language", "is_student")
"""Columns by which the fairness table compares how often, and how rightly, customers are flagged."""
