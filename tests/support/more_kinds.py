"""Values of the kinds that the tests' company lacks, and what each is accepted as: the same wherever a row comes in.

`TEXTS` are spelled, as CSV files and forms hold them; `TYPED` have a type of their own, as in Parquet, JSON and pandas.
"""

from typing import Any

AS_OF = "2026-03-31"
REFUSED = "refused"
ROW: dict[str, Any] = {
    "customer_id": "A-1:1",
    "as_of": AS_OF,
    "plan": "Basic",
    "has_app": True,
    "city": "Aden",
    "device": "phone",
    "joined": "2025-03-31",
    "last_call": "2026-03-01",
    "monthly_fee": 20.0,
}
"""A row that keeps the contract."""

Case = tuple[str, Any, Any]
"""A column, a value of it, and what it becomes, or REFUSED; of a date, the days before the row."""


def _cases(column: str, accepted: dict[Any, Any], *refused: Any) -> list[Case]:
    return [*((column, value, becomes) for value, becomes in accepted.items()), *((column, value, REFUSED) for value in refused)]


TEXTS: list[Case] = [
    *_cases("plan", {"Plus": "Plus", "": None, " ": None}, "missing", "plus", "Gold"),
    *_cases("has_app", {"Y": True, "N": False, "true": True, "": None}, "missing", "maybe"),
    *_cases("city", {"Zug": "Zug", "a=b": "a=b", "x" * 128: "x" * 128, "New York": "New York"}, "", " Aden", "x" * 129, "A\tB"),
    *_cases("device", {"watch": "watch", "": None}, "watch "),
    *_cases(
        "joined",
        {"2026-03-01": 30, "2026-03-01T23:59:00Z": 30, " 2026-03-01 ": 30, "2026-03-01T01:00:00+02:00": 31},
        *("2026-04-01", "2026-02-30", "20260301", "45000", "01.03.2026", ""),
    ),
    *_cases("last_call", {"2026-03-31": 0, "2026-03-30": 1, "": None}, "2026-04-01", "never"),
]

TYPED: list[Case] = [
    *_cases("plan", {"Plus": "Plus", None: None, "": None, " ": None}, "missing", 1, True),
    *_cases("has_app", {True: True, False: False, None: None}, "missing", 2),
    *_cases("city", {"Zug": "Zug", "a=b": "a=b", 8001: "8001"}, None, "", " Aden", "x" * 129, True, 7.5),
    *_cases("device", {"watch": "watch", None: None, "": None}, "watch "),
    *_cases("joined", {"2026-03-01": 30, "2026-03-01T23:59:00Z": 30}, "2026-04-01", "20260301", 20260301, 30.0, None, "", True),
    *_cases("last_call", {"2026-03-31": 0, None: None, "": None}, "2026-04-01", -1, 1.5),
]
