"""Values of every kind, and what each is accepted as: the same wherever a row comes in.

`TEXTS` are spelled, as CSV files and text columns hold them; `TYPED` have a type of their own, as in Parquet, JSON and pandas.
"""

from dataclasses import dataclass, field
from typing import Any

REFUSED = object()
NAN, INF = float("nan"), float("inf")
NEW = {"member_months": 0}
"""A customer who has not been billed: the total is null."""


@dataclass(frozen=True)
class Case:
    """A value of a column, and what it becomes, or REFUSED; `beside` are other columns of the row that it needs."""

    column: str
    value: Any
    becomes: Any
    beside: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        verdict = "refused" if self.becomes is REFUSED else repr(self.becomes)
        return f"{self.column}-{type(self.value).__name__}-{self.value!r:.40}-{verdict:.40}"


def _cases(column: str, accepted: dict[Any, Any], refused: tuple[Any, ...], **beside: Any) -> list[Case]:
    return [
        *(Case(column, value, becomes, beside) for value, becomes in accepted.items()),
        *(Case(column, value, REFUSED, beside) for value in refused),
    ]


TEXTS = [
    *_cases(
        "monthly_fee",
        {"29.85": 29.85, " 5 ": 5.0, ".5": 0.5, "5.": 5.0, "1e2": 100.0, "+5": 5.0, "1000": 1000.0},
        (
            *("20,50", "1,234", "$1,234", "N/A", "null", "nan", "NaN", "inf", "Infinity", "1e400", "1_000", "0x10", "٣"),
            *("1e", "5 0", "true", "True", "-5", "1000.01", "", " "),
        ),
    ),
    *_cases("total_fees", {"": None, " ": None}, ("20,50", "N/A", "$1,234", "inf", "nan", "1e400", "-", "0"), **NEW),
    *_cases(
        "member_months",
        {"5": 5, " 5 ": 5, "5.0": 5, "5.": REFUSED, "+5": 5, "007": 7},
        ("5.5", "5e1", "1_0", "1,0", "five", "0x1", "-1", "721", "9" * 18, "9" * 30, "1e400", "true", "N/A", "", " "),
    ),
    *_cases(
        "commitment",
        {"Season": "Season"},
        ("one year", "ONE YEAR", " Season", "Season ", "Season\t", "Three seasons", "N/A", "1", "", " "),
    ),
    *_cases(
        "is_duo",
        {"Yes": True, "No": False, " Yes ": True, "true": True, "True": True, "false": False, "False": False},
        ("yes", "TRUE", "Y", "1", "0", "2", "maybe", "", " "),
    ),
    *_cases("is_student", {"1": True, "0": False, " 1": True, "true": True, "False": False}, ("Yes", "2", "1.0", "01", "")),
    *_cases(
        "customer_id",
        {each: each for each in ("A-1", "0042", "1e15", "9007199254740993", "é ü", "x" * 128, "a b", "NaN", "null")},
        (" A-1", "A-1 ", "\u00a0A-1", "A\t1", "A\n1", "A\x7f1", "x" * 129),
    ),
]

TYPED = [
    *_cases("monthly_fee", {29.85: 29.85, 5: 5.0, 0.0: 0.0}, (-5.0, -5, 1000.5, 1001, INF, -INF, NAN, 1e39, None, True)),
    *_cases("total_fees", {None: None, NAN: None}, (INF, -1.0, True, 0.0), **NEW),
    *_cases("member_months", {5: 5, 5.5: REFUSED}, (-1, 721, 2**53 + 1, 2**62, True, None, NAN, INF, 1e300)),
    Case("member_months", 5.0, 5),
    *_cases("commitment", {"Season": "Season"}, ("one year", "Season ", " Season", "Three seasons", "", " ", None, 1, 1.0, True)),
    *_cases("is_duo", {True: True, False: False}, (None, 2, 0.5)),
    *(Case("is_duo", number, REFUSED) for number in (1, 0, 1.0)),
    *_cases("is_student", {True: True, False: False}, (None, 2, 0.5, -1)),
    *(Case("is_student", number, bool(number)) for number in (1, 0, 1.0)),
    *_cases(
        "customer_id",
        {
            **{"A-1": "A-1", "0042": "0042", 7: "7", 2**53 + 1: "9007199254740993", 1e15: "1000000000000000"},
            **{2**63 - 1: "9223372036854775807", -(2**63): "-9223372036854775808", 2**64 - 1: "18446744073709551615"},
        },
        (" A-1", "A-1 ", "A\n1", "x" * 129, 7.5, 2.0**53, 1e22, INF, True, 2**64, 10**20, -(2**63) - 1),
    ),
    Case("customer_id", 8.0, "8"),
]
