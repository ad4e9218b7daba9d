"""A telephone company that starts from the real customers of the shipped dataset and plays the months forward.

Modelling choices, and why:

- **Leaving** is drawn from a logistic regression fitted on the real rows. Features are clipped to the range that the real rows
  have, so that nothing is extrapolated to a tenure or a charge that nobody had.
- **The first month follows the file**: who left there is gone, the others are a month older. So the labels of data/raw and of the
  world agree, and a leaver never comes back.
- **Every leaver is replaced** by a copy of a real row under a new name, drawn by its hazard: churners are short-tenured, so that
  replacing them by beginners alone would make the company young within two months. Rows of tenure 0 and 1 are drawn as often as
  they occur, because nobody ages into them. The rest take over a contract with its history. Both balance ageing; what is left is
  a slow growth of the longest tenures, as the file has nobody above 72 months.
- **Changes of service, term and payment**: customers meet real ones and copy a part of their contract if they are alike in tenure
  and in what the part depends on. Copying among the alike leaves the distribution where it was.
- **Prices** follow a list fitted by least squares: a real charge is almost exactly the sum of its services.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn import paths
from churn.contract import (
    BY_NAME,
    COLUMNS,
    ENTITY,
    LABEL,
    TIMESTAMP,
    Category,
    Column,
    Flag,
    Integer,
    Real,
    Text,
    Timestamp,
    broken,
)
from churn.errors import ContractError
from churn.features import Coded, Matrix, derive, encode, encoded_names
from churn.sources import read

State = dict[str, npt.NDArray[Any]]
"""Column name → (n,) array: categories as int8 codes into the contract's values, the entity as bytes."""

NAME_LENGTH = 13
"""Letters of a new customer's name: an S, four digits of the chunk, eight of the customer."""

ADD_ONS = ("online_security", "online_backup", "device_protection", "tech_support", "streaming_tv", "streaming_movies")
SERVICES = ("has_phone", "multiple_lines", "internet_service", *ADD_ONS)
TELCO = (*SERVICES, "tenure_months", "term", "is_paperless", "payment_method", "monthly_charges", "total_charges")

PRICE_LEVEL = 1.2
"""What a price rise multiplies every charge by."""

REACTION = 4.0
"""What a price rise adds to the log-odds of leaving, per unit of log(charge now / average so far), which counts up to the
rise itself. With 4, an old customer's odds of leaving double after a rise of a fifth."""

SURGE = 2.0
"""Additional newcomers per newcomer of a usual month."""

REVERSED = ("term", "internet_service")
DECISIVENESS = 2.0
"""A changed concept turns the effect of the `REVERSED` features round: a rival buys people out of long terms and of all but
fibre. Every weight is multiplied by `DECISIVENESS`, so that whoever learns the new relation tells leavers as well as before."""


class Scenario(StrEnum):
    """What happens to the company, from the scenario's month on."""

    NONE = "none"
    PRICE_RISE = "price-rise"
    SURGE = "surge"
    CONCEPT = "concept"


@dataclass(frozen=True)
class Hazard:
    """The probability that a customer leaves within the month: log-odds linear in the clipped features."""

    weights: npt.NDArray[np.float32]
    intercept: float
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]

    def log_odds(self, matrix: Matrix) -> npt.NDArray[np.float32]:
        """(n,) log-odds of the rows of `churn.features.encode`'s (n, k) matrix."""
        return np.asarray(np.clip(matrix, self.low, self.high) @ self.weights + np.float32(self.intercept))


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


@dataclass(frozen=True)
class Reality:
    """What is known of the real customers: rows, who left, how leaving depends on the row, the price list, and the rows' date."""

    rows: State
    hazards: dict[Scenario, Hazard]
    prices: npt.NDArray[np.float32]
    snapshot: datetime

    @property
    def size(self) -> int:
        """Number of real customers."""
        return len(self.rows[ENTITY])


def learn() -> Reality:
    """The hazard and the price list fitted on data/raw's real customers.

    Raises:
        ContractError: the contract is not Telco's, or the file breaks it.
        SourceError: the file of real customers cannot be read.
    """
    if missing := [name for name in TELCO if name not in BY_NAME]:
        raise ContractError(
            f"contract.py: no column {missing[0]}; simulate plays Telco's world only: write another for this dataset"
        )
    if not (snapshot := BY_NAME[TIMESTAMP].default):
        raise ContractError(f"contract.py: {TIMESTAMP} has no default; simulate begins there: write another for this dataset")
    rows = _real_rows()
    matrix = encode(derive(as_columns(rows)))
    hazard = _fit(matrix, rows[LABEL])
    prices = np.linalg.lstsq(_services(rows), rows["monthly_charges"])[0].astype(np.float32)
    return Reality(rows, dict.fromkeys(Scenario, hazard) | {Scenario.CONCEPT: _changed(hazard, matrix)}, prices, snapshot)


def _real_rows() -> State:
    from churn.rows import typed

    path = str(paths.RAW / "customers.csv")
    frame, _ = typed(read(path))
    for name, rule, bad in broken({column.name: frame[column.name] for column in COLUMNS}):
        raise ContractError(f"{path}: {name}: {bad.sum()} of {len(bad)} rows not {rule}; put the shipped file back")
    state: State = {}
    for column in COLUMNS:
        values = frame[column.name]
        match column.kind:
            case Category(texts):
                state[column.name] = values.cat.set_categories(list(texts)).cat.codes.to_numpy()
            case Text():
                state[column.name] = values.to_numpy().astype(f"S{NAME_LENGTH}")
            case Integer() | Real() | Flag():
                state[column.name] = values.to_numpy()
    return state


def _fit(matrix: Matrix, churned: npt.NDArray[np.bool_]) -> Hazard:
    from sklearn.linear_model import LogisticRegression

    mean, deviation = matrix.mean(axis=0), matrix.std(axis=0)
    model = LogisticRegression(C=0.1, max_iter=1000).fit((matrix - mean) / deviation, churned)
    weights = (model.coef_[0] / deviation).astype(np.float32)
    return Hazard(weights, float(model.intercept_[0] - mean @ weights), matrix.min(axis=0), matrix.max(axis=0))


def _changed(hazard: Hazard, matrix: Matrix) -> Hazard:
    """The hazard of a changed concept, with the intercept at which as many real customers leave as before."""
    factors = [-DECISIVENESS if name.partition("=")[0] in REVERSED else DECISIVENESS for name in encoded_names()]
    changed = replace(hazard, weights=hazard.weights * np.array(factors, dtype=np.float32), intercept=0.0)
    log_odds, rate = changed.log_odds(matrix), _probability(hazard.log_odds(matrix)).mean()
    low, high = -50.0, 50.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if _probability(log_odds + middle).mean() > rate else (middle, high)
    return replace(changed, intercept=low)


def _probability(log_odds: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def as_columns(rows: State) -> dict[str, Any]:
    """The rows as the contract and the features take them: categories compare like their texts."""
    kinds = {name: BY_NAME[name].kind for name in rows}
    return {name: Coded(rows[name], kind.values) if isinstance(kind, Category) else rows[name] for name, kind in kinds.items()}


def _services(rows: State) -> Matrix:
    """(n, k) one-hot services, by which the price list is fitted and read."""
    return encode(as_columns(rows), tuple(name for name in encoded_names() if name.partition("=")[0] in SERVICES))


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

        `event_timestamp` is the first of the month, 00:00 UTC; `churned` tells who will be gone in the next step.
        """
        self.month += 1
        leavers = np.flatnonzero(self._rows[LABEL])
        self._bill()
        self._replace(leavers)
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
        rows["tenure_months"] += 1
        rows["total_charges"] = np.round(np.nan_to_num(rows["total_charges"]) + rows["monthly_charges"], 2)

    def _replace(self, leavers: npt.NDArray[np.intp]) -> None:
        weights = np.where(self._reality.rows["tenure_months"] <= 1, 1.0, self._hazard(self._reality.rows))
        for name, values in self._joiners(weights, len(leavers)).items():
            self._rows[name][leavers] = values

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
        return np.asarray(_services({name: self._rows[name][which] for name in SERVICES}) @ self._reality.prices)

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
        return _probability(log_odds)

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
