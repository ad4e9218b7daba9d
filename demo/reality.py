"""What the world of `demo.world` learns of the real customers: rows, hazard of leaving, price list."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from churn import paths
from churn.adapters.sources import read
from churn.contract import (
    BY_NAME,
    COLUMNS,
    ENTITY,
    LABEL,
    TIMESTAMP,
    Category,
    Flag,
    Integer,
    Real,
    Text,
    broken,
)
from churn.domain.encoding import Coded, Matrix, derive, encode, encoded_names
from churn.errors import ContractError

State = dict[str, npt.NDArray[Any]]
"""Column name → (n,) array: categories as int8 codes into the contract's values, the entity as bytes."""

NAME_LENGTH = 13
"""Letters of a new customer's name: an S, four digits of the chunk, eight of the customer."""

ADD_ONS = ("online_security", "online_backup", "device_protection", "tech_support", "streaming_tv", "streaming_movies")
SERVICES = ("has_phone", "multiple_lines", "internet_service", *ADD_ONS)
TELCO = (*SERVICES, "tenure_months", "term", "is_paperless", "payment_method", "monthly_charges", "total_charges")

REVERSED = ("term", "internet_service")
DECISIVENESS = 2.0
"""A changed concept turns the effect of the `REVERSED` features round: a rival buys people out of long terms and of all but
fibre. Every weight is multiplied by `DECISIVENESS`, so that a model of the new relation finds churners as well as before."""


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
    prices = np.linalg.lstsq(services_of(rows), rows["monthly_charges"])[0].astype(np.float32)
    return Reality(rows, dict.fromkeys(Scenario, hazard) | {Scenario.CONCEPT: _changed(hazard, matrix)}, prices, snapshot)


def _real_rows() -> State:
    from churn.adapters.rows import typed, violation

    path = str(paths.RAW / "customers.csv")
    frame, _ = typed(read(path))
    for name, rule, bad in broken({column.name: frame[column.name] for column in COLUMNS}):
        raise ContractError(f"{path}: {violation(name, rule, sum(bad), of=len(bad))}; put the shipped file back")
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

    rows = matrix.astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    model = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-10).fit((rows - mean) / deviation, churned)
    weights = (model.coef_[0] / deviation).astype(np.float32)
    return Hazard(weights, float(model.intercept_[0] - mean @ weights), matrix.min(axis=0), matrix.max(axis=0))


def _changed(hazard: Hazard, matrix: Matrix) -> Hazard:
    """The hazard of a changed concept, with the intercept at which as many real customers leave as before."""
    factors = [-DECISIVENESS if name.partition("=")[0] in REVERSED else DECISIVENESS for name in encoded_names()]
    changed = replace(hazard, weights=hazard.weights * np.array(factors, dtype=np.float32), intercept=0.0)
    log_odds, rate = changed.log_odds(matrix), probability(hazard.log_odds(matrix)).mean()
    low, high = -50.0, 50.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if probability(log_odds + middle).mean() > rate else (middle, high)
    return replace(changed, intercept=low)


def probability(log_odds: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """(n,) log-odds as probabilities."""
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def as_columns(rows: State) -> dict[str, Any]:
    """The rows as the contract and the features take them: categories compare like their texts."""
    kinds = {name: BY_NAME[name].kind for name in rows}
    return {name: Coded(rows[name], kind.values) if isinstance(kind, Category) else rows[name] for name, kind in kinds.items()}


def services_of(rows: State) -> Matrix:
    """(n, k) one-hot services, by which the price list is fitted and read."""
    return encode(as_columns(rows), tuple(name for name in encoded_names() if name.partition("=")[0] in SERVICES))
