"""The tables of another contract: telephone lines, one row per line and month, with every kind that the tests' company lacks."""

from datetime import timedelta

from churn.contract import Array, Category, Column, Columns, Date, Flag, Grouped, Real, Role, Rule, Slice, Text, Timestamp

FEATURE_TTL = timedelta(days=3650)

LABEL_HORIZON = timedelta(days=30)

COLUMNS: tuple[Column, ...] = (
    Column(
        name="customer_id",
        kind=Text(),
        role=Role.ENTITY,
        source=("account", "line"),
        description="Identifies the line",
    ),
    Column(name="as_of", kind=Timestamp(), role=Role.TIMESTAMP, description="The end of the row's month"),
    Column(name="plan", kind=Category(("Basic", "Plus")), null_as="missing", description="Plan; blank before the first one"),
    Column(name="has_app", kind=Flag("Y", "N"), null_as="missing", description="Uses the app; blank where it is not known"),
    Column(name="city", kind=Grouped(commonest=4), description="Where the line is billed"),
    Column(name="device", kind=Grouped(commonest=3), null_as="missing", description="Kind of device; blank where unknown"),
    Column(name="joined", kind=Date(), source="JoinedOn", description="Since the line was opened"),
    Column(name="last_call", kind=Date(), null_as=-1, description="Since the last call; blank before the first one"),
    Column(name="monthly_fee", kind=Real(0, 500), description="Monthly fee, euros"),
    Column(
        name="churned",
        kind=Flag("1", "0"),
        role=Role.LABEL,
        description="Closed within the month after `as_of`",
    ),
)


def _called_after_it_joined(c: Columns) -> Array:
    """last_call is not before joined"""
    return (c["last_call"] != c["last_call"]) | (c["last_call"] <= c["joined"])


RULES: tuple[Rule, ...] = (Rule("called_after_it_joined", str(_called_after_it_joined.__doc__), 1.0, _called_after_it_joined),)

SLICES: tuple[Slice, ...] = (Slice("plan"), Slice("has_app"), Slice("joined", edges=(90,)))

PROTECTED: tuple[str, ...] = ("plan",)
