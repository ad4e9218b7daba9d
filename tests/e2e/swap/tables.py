"""The tables of another contract: accounts of a video-streaming service, one row per account and month."""

from datetime import timedelta

from churn.contract import Array, Category, Column, Columns, Flag, Integer, Real, Role, Rule, Slice, Text, Timestamp

FEATURE_TTL = timedelta(days=62)

LABEL_HORIZON = timedelta(days=30)
"""Two monthly refreshes."""

COLUMNS: tuple[Column, ...] = (
    Column(name="account_number", kind=Text(), role=Role.ENTITY, source="AccountNo", description="Identifies the account"),
    Column(name="as_of", kind=Timestamp(), role=Role.TIMESTAMP, source="MonthEnd", description="The end of the row's month"),
    Column(
        name="plan",
        kind=Category(("Free", "Basic", "Standard", "Premium", "Family")),
        source="Plan",
        description="Plan that the account is on",
    ),
    Column(
        name="region",
        kind=Category(("north", "south", "islands")),
        source="Region",
        description="Where the account is billed",
    ),
    Column(name="price_cents", kind=Integer(0, 5000), source="PriceCents", description="Monthly price, cents"),
    Column(
        name="days_since_login",
        kind=Integer(0, 365),
        source="DaysSinceLogin",
        mostly=0.99,
        description="Days since somebody logged in",
    ),
    Column(
        name="hours_watched",
        kind=Real(0, 744),
        source="HoursWatched",
        null_as=0.0,
        description="Hours watched in the month; blank for an account that has never watched",
    ),
    Column(
        name="titles_finished",
        kind=Integer(0, 1000),
        source="TitlesFinished",
        null_as=-1,
        description="Titles watched to their end in the month; blank for an account that has never watched",
    ),
    Column(name="renews_itself", kind=Flag("Y", "N"), source="AutoRenew", description="Renews without anybody doing anything"),
    Column(name="is_shared", kind=Flag("true", "false"), source="shared", description="Has more than one profile"),
    Column(
        name="cancelled",
        kind=Flag("1", "0"),
        role=Role.LABEL,
        source="cancelled_next_month",
        description="Cancelled within the month after `as_of`",
    ),
)


def _free_costs_nothing(c: Columns) -> Array:
    """price_cents is 0 exactly where plan is Free"""
    return (c["plan"] == "Free") == (c["price_cents"] == 0)


def _never_watched_never_finished(c: Columns) -> Array:
    """hours_watched and titles_finished are blank together"""
    return (c["hours_watched"] != c["hours_watched"]) == (c["titles_finished"] != c["titles_finished"])


RULES: tuple[Rule, ...] = (
    Rule("free_costs_nothing", str(_free_costs_nothing.__doc__), 1.0, _free_costs_nothing),
    Rule("never_watched_never_finished", str(_never_watched_never_finished.__doc__), 1.0, _never_watched_never_finished),
)

SLICES: tuple[Slice, ...] = (Slice("plan"), Slice("renews_itself"), Slice("hours_watched", edges=(5, 20)))

PROTECTED: tuple[str, ...] = ("region",)
