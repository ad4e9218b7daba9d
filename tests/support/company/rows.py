"""The rows of Nordbad, a fictitious club with a pool: who cancels is drawn from a hazard that models can learn."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

CUSTOMERS = 7043
NEW = 11
"""Customers who have not been billed yet."""
EXTRAS = ("SwimClass", "Sauna", "TowelService", "Coaching", "AquaGym", "Diving")
PRICES = {"SwimClass": 5.0, "Sauna": 5.0, "TowelService": 5.0, "Coaching": 5.0, "AquaGym": 10.0, "Diving": 10.0}

FIRST: dict[str, list[Any]] = {
    "language": ["Danish", "Dutch", "Dutch"],
    "Membership": [1, 34, 2],
    "PaidBy": ["Online invoice", "Paper invoice", "Paper invoice"],
    "MonthlyFee": [29.85, 56.95, 53.85],
    "TotalFees": ["29.85", "1889.5", "108.15"],
    "Cancelled": ["No", "No", "Yes"],
}
"""What tests expect of the first rows."""


def table() -> dict[str, list[Any]]:
    """Column of the raw file → its texts; always the same."""
    rng = np.random.default_rng(11)
    n = CUSTOMERS
    months = np.clip(np.where(rng.random(n) < 0.3, rng.gamma(1.0, 5.0, n), rng.uniform(1, 80, n)), 1, 72).astype(int)
    pool = rng.choice(["Day pass", "Full pass", "No"], n, p=[0.34, 0.44, 0.22])
    locker = (rng.random(n) < 0.8) | (pool != "Day pass")
    second = rng.random(n) < 0.3 + 0.004 * months
    extras = {name: rng.random(n) < 0.2 + 0.006 * months for name in EXTRAS}
    is_monthly, is_season = rng.random(n) < 0.85 - 0.009 * months, rng.random(n) < 0.5
    commitment = np.select([is_monthly, is_season], ["Monthly", "Season"], default="Two seasons")
    student = rng.random(n) < 0.16
    duo = rng.random(n) < 0.3 + 0.005 * months
    children = rng.random(n) < np.where(duo, 0.5, 0.09)
    newsletter = rng.random(n) < np.where(pool == "No", 0.3, 0.68)
    paid = rng.choice(
        ["Online invoice", "Paper invoice", "Direct debit (automatic)", "Card (automatic)"], n, p=[0.34, 0.22, 0.22, 0.22]
    )
    fee = 20.0 * locker + 5 * (locker & second) + np.select([pool == "Day pass", pool == "Full pass"], [25, 50], default=0)
    fee = fee + sum(PRICES[name] * (extras[name] & (pool != "No")) for name in EXTRAS)
    fee = np.round((fee + rng.normal(0, 0.5, n)) * 20) / 20
    odds = 1.3 * (commitment == "Monthly") - 1.6 * (commitment == "Two seasons") + 1.1 * (pool == "Full pass")
    odds = odds - 1.2 * (pool == "No") - 0.04 * months + 1.3 * (months <= 6) + 0.5 * (paid == "Online invoice")
    odds = odds + 0.4 * student + 0.3 * newsletter - 0.5 * extras["SwimClass"] - 0.5 * extras["Coaching"] - 0.3 * children
    # What no linear model sees: dear memberships end where nothing binds.
    odds = odds + np.where(fee > 70, 1.6, -0.8) * (commitment == "Monthly") * np.where(duo, -1.0, 1.0)
    leaves = rng.random(n) < 1 / (1 + np.exp(1.5 - 0.65 * odds))
    new = 3 + rng.choice(n - 3, NEW, replace=False)
    months[new], leaves[new] = 0, False
    total = np.round(np.where(months == 1, fee, months * fee * rng.uniform(0.93, 1.07, n)), 2)
    numbers = rng.permutation(np.arange(1000, 10_000))[:n]
    letters = rng.choice(list("BCDFGHJKLMNPQRSTVWXZ"), (n, 5))
    columns = {
        "MemberNo": [f"{number}-{''.join(suffix)}" for number, suffix in zip(numbers, letters, strict=True)],
        "language": _texts(rng.random(n) < 0.5, "Danish", "Dutch"),
        "Student": _texts(student, "1", "0"),
        "Duo": _texts(duo),
        "Children": _texts(children),
        "Membership": months.tolist(),
        "Locker": _texts(locker),
        "SecondLocker": np.where(locker, _texts(second), "No locker").tolist(),
        "Pool": pool.tolist(),
        **{name: np.where(pool == "No", "No pool", _texts(taken)).tolist() for name, taken in extras.items()},
        "Commitment": commitment.tolist(),
        "Newsletter": _texts(newsletter),
        "PaidBy": paid.tolist(),
        "MonthlyFee": fee.tolist(),
        "TotalFees": ["" if month == 0 else str(value) for month, value in zip(months, total.tolist(), strict=True)],
        "Cancelled": _texts(leaves),
    }
    for name, values in FIRST.items():
        columns[name][: len(values)] = values
    return columns


def write(path: Path) -> None:
    """Write the raw file."""
    columns = table()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _texts(values: Any, yes: str = "Yes", no: str = "No") -> list[str]:
    return [yes if value else no for value in values]
