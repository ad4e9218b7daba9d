"""A telephone company that starts from the real customers of the shipped dataset and plays the months forward.

Modelling choices, and why:

- **Leaving** is drawn from a logistic regression fitted on the real rows. Features are clipped to the range that the real rows
  have, so that nothing is extrapolated to a tenure or a charge that no customer had.
- **The first month follows the file**: who left there is gone, the others are a month older. So the labels of data/raw and of the
  world agree, and a churner never comes back.
- **Every churner is replaced** by a copy of a real row under a new name, drawn by its hazard: churners are short-tenured, so that
  replacing them by beginners alone would make the company young within two months. Rows of tenure 0 and 1 are drawn as often as
  they occur, because no customer ages into them. The rest take over a contract with its history. Both balance ageing.
- **The longest tenure counts on no further**: the file has no customer above 72 months and one in twenty at 72, which reads
  as "72 or more". Such a customer's total is that of the last 72 months.
- **Changes of service, term and payment**: customers meet real ones and copy a part of their contract if they are alike in tenure
  and in what the part depends on. Copying among the alike leaves the distribution where it was.
- **Prices** follow a list fitted by least squares: a real charge is almost exactly the sum of its services.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn.contract import (
    COLUMNS,
    ENTITY,
    LABEL,
    TIMESTAMP,
    Category,
    Column,
    Text,
    Timestamp,
)
from churn.domain.encoding import derive, encode
from demo.reality import ADD_ONS, NAME_LENGTH, SERVICES, Reality, Scenario, State, as_columns, learn, probability, services_of

PRICE_LEVEL = 1.2
"""What a price rise multiplies every charge by."""

REACTION = 4.0
"""What a price rise adds to the log-odds of leaving, per unit of log(charge now / average so far), which counts up to the
rise itself. With 4, an old customer's odds of leaving double after a rise of a fifth."""

SURGE = 2.0
"""Additional newcomers per newcomer of a usual month."""


@dataclass(frozen=True)
class Change:
    """Columns that are copied from a customer alike in tenure and in `given`."""

    columns: tuple[str, ...]
    given: str


CHANGES = (
    Change(SERVICES, given="term"),
    Change(("term",), given="internet_service"),
    Change(("payment_method", "is_paperless"), given="internet_service"),
    *(Change((name,), given="internet_service") for name in ADD_ONS),
)
MEETINGS = 0.05
"""Share of customers who meet another in a month, per change; about one in ten of them is alike."""


class World:
    """One company. Every `step` is a month; the first is the month after the shipped file's.

    `hazard` (n,) holds the true probability of leaving of each row of the last step. World `chunk` 0 begins with the real
    customers under their own names; any further customer, and every one of the other chunks, is a copy of one with a new name.
    `scenario` begins with step `scenario_month`, counted from 1. The same arguments give the same rows.
    """

    def __init__(
        self,
        customers: int,
        seed: int | np.random.SeedSequence,
        scenario: Scenario = Scenario.NONE,
        scenario_month: int = 3,
        *,
        chunk: int = 0,
        reality: Reality | None = None,
    ) -> None:
        self.month = 0
        self._reality = reality or learn()
        self._random = np.random.default_rng(seed)
        self._scenario = scenario
        self._scenario_month = scenario_month
        self._next_name = chunk * 10**8
        self.hazard: npt.NDArray[np.floating] = np.empty(0)
        self._rows = self._first_rows(customers, named=min(customers, self._reality.size) if chunk == 0 else 0)
        self._newcomers = round(customers * float(np.mean(self._reality.rows["tenure_months"] <= 1)))

    def step(self) -> pa.Table:
        """The rows of the next month, one per customer: the contract's columns and kinds, categories as dictionaries of text.

        `event_timestamp` is the first of the month, 00:00 UTC; `churned` is true for those who will be gone in the next step.
        """
        self.month += 1
        churners = np.flatnonzero(self._rows[LABEL])
        self._bill()
        self._replace(churners)
        if self._scenario_now is Scenario.SURGE:
            self._welcome()
        self.hazard = self._hazard(self._rows)
        self._rows[LABEL] = self._random.random(len(self.hazard)) < self.hazard
        return self._table()

    @property
    def _scenario_now(self) -> Scenario:
        return self._scenario if self.month >= self._scenario_month else Scenario.NONE

    @property
    def _price_level(self) -> float:
        return PRICE_LEVEL if self._scenario_now is Scenario.PRICE_RISE else 1.0

    def _first_rows(self, customers: int, named: int) -> State:
        picks = np.arange(customers)
        picks[named:] = self._random.integers(self._reality.size, size=customers - named)
        rows = {name: values[picks] for name, values in self._reality.rows.items()}
        rows[ENTITY][named:] = self._new_names(customers - named)
        return rows

    def _new_names(self, count: int) -> npt.NDArray[np.bytes_]:
        numbers = self._next_name + np.arange(count)
        self._next_name += count
        letters = np.full((count, NAME_LENGTH), ord("S"), dtype=np.uint8)
        letters[:, 1:] = numbers[:, None] // 10 ** np.arange(NAME_LENGTH - 2, -1, -1) % 10 + ord("0")
        return letters.view(f"S{NAME_LENGTH}")[:, 0]

    def _bill(self) -> None:
        """A month passes: prices and contracts change, then everyone is billed."""
        rows = self._rows
        if self.month == self._scenario_month:
            rows["monthly_charges"] = np.round(rows["monthly_charges"] * self._price_level, 2)
        for change in CHANGES:
            self._copy(change)
        longest = self._reality.rows["tenure_months"].max()
        paid = np.nan_to_num(rows["total_charges"])
        paid = np.where(rows["tenure_months"] < longest, paid, paid * (longest - 1) / longest)
        rows["tenure_months"] = np.minimum(rows["tenure_months"] + 1, longest)
        rows["total_charges"] = np.round(paid + rows["monthly_charges"], 2)

    def _replace(self, churners: npt.NDArray[np.intp]) -> None:
        weights = np.where(self._reality.rows["tenure_months"] <= 1, 1.0, self._hazard(self._reality.rows))
        for name, values in self._joiners(weights, len(churners)).items():
            self._rows[name][churners] = values

    def _welcome(self) -> None:
        """The additional newcomers of a surge."""
        arrived = self._joiners(self._reality.rows["tenure_months"] <= 3, round(SURGE * self._newcomers))
        self._rows = {name: np.concatenate([values, arrived[name]]) for name, values in self._rows.items()}

    def _copy(self, change: Change) -> None:
        """Some customers take over a part of another's contract, and the difference in price."""
        rows, real = self._rows, self._reality.rows
        movers = np.flatnonzero(self._random.random(len(rows[ENTITY])) < MEETINGS)
        models = self._random.integers(self._reality.size, size=len(movers))
        is_alike = rows[change.given][movers] == real[change.given][models]
        is_alike &= _tenure_years(rows["tenure_months"][movers]) == _tenure_years(real["tenure_months"][models])
        movers, models = movers[is_alike], models[is_alike]
        before = self._list_price(movers)
        for name in change.columns:
            rows[name][movers] = real[name][models]
        charges = rows["monthly_charges"][movers] + self._price_level * (self._list_price(movers) - before)
        rows["monthly_charges"][movers] = np.round(np.maximum(charges, real["monthly_charges"].min()), 2)

    def _list_price(self, which: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        return np.asarray(services_of({name: self._rows[name][which] for name in SERVICES}) @ self._reality.prices)

    def _joiners(self, weights: npt.NDArray[Any], count: int) -> State:
        """New customers, drawn from the real ones by weight; after a price rise they have paid the new price since."""
        picks = self._random.choice(self._reality.size, size=count, p=weights / weights.sum())
        rows = {name: values[picks] for name, values in self._reality.rows.items()}
        rows[ENTITY] = self._new_names(count)
        raised = rows["monthly_charges"] * (self._price_level - 1)
        months = np.minimum(rows["tenure_months"], self.month - self._scenario_month + 1)
        rows["total_charges"] = np.round(rows["total_charges"] + raised * months, 2)
        rows["monthly_charges"] = np.round(rows["monthly_charges"] + raised, 2)
        return rows

    def _hazard(self, rows: State) -> npt.NDArray[np.floating]:
        log_odds = self._reality.hazards[self._scenario_now].log_odds(encode(derive(as_columns(rows))))
        if self._price_level > 1:
            due = rows["tenure_months"] * rows["monthly_charges"]
            paid = np.divide(rows["total_charges"], due, out=np.ones_like(due), where=due > 0)
            log_odds = log_odds - REACTION * np.log(np.clip(paid, 1 / self._price_level, 1))
        return probability(log_odds)

    def _table(self) -> pa.Table:
        start = self._reality.snapshot
        months = start.month - 1 + self.month
        now = start.replace(year=start.year + months // 12, month=months % 12 + 1)
        return pa.table({column.name: _array(column, self._rows, now) for column in COLUMNS})


def _array(column: Column, rows: State, now: datetime) -> pa.Array:
    # Arrow shares NumPy's memory, which the next month overwrites: hence the copy.
    values = rows[ENTITY if column.name == TIMESTAMP else column.name].copy()
    match column.kind:
        case Timestamp():
            return pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), len(values))
        case Category(texts):
            return pa.DictionaryArray.from_arrays(pa.array(values), pa.array(texts))
        case Text():
            return pa.array(values).cast(pa.string())
        case _:
            return pa.array(values, from_pandas=True)


def _tenure_years(tenure_months: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.minimum(tenure_months // 12, 5)
