"""A company made from any table: real rows resampled, leaving drawn from a model that was fitted on them.

- **Leaving** is drawn from gradient boosting fitted on the real rows.
- **Every churner is replaced** by a copy of a real row under a new name, drawn by its hazard: so the mix of customers stays.
- **Time passes** by what the contract says of each column: a column with `grows_by` grows, a `fixed` one stays, any other may
  change: each month some customers take over all of these from a real row that is about as old.
- A change after which a row would break the contract does not happen to that row.
- **A change of the world** begins with its month: a column is raised and those who have much of it leave sooner; more customers
  of one kind join; or the effect of a column turns round.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from churn import paths
from churn.adapters.rows import batch_of, typed
from churn.adapters.sources import read
from churn.contract import (
    BY_NAME,
    COLUMNS,
    ENTITY,
    LABEL,
    RAW_FEATURES,
    TIMESTAMP,
    Category,
    Column,
    Date,
    Integer,
    Real,
    broken,
)
from churn.domain.encoding import computable, derive, encode, encoded_names
from churn.domain.metrics import roc_auc
from churn.errors import ContractError

MONTH = timedelta(days=30)
MOVES = 0.05
"""Share of customers who change their plan in a month."""
SURGE = 0.1
"""Additional customers a month in a surge, as a share of all."""
REACTION = 1.5
"""What a raise adds to the log-odds of leaving of the customers with most of the column, and takes from those with least."""
LEAST_CHURNERS = 100
"""With fewer, chance decides what the gate says of the new version."""


class Kind(StrEnum):
    """How the world changes."""

    NONE = "none"
    RAISE = "raise"
    SURGE = "surge"
    FLIP = "flip"


@dataclass(frozen=True)
class Change:
    """What happens to which column: a raise by a factor, a surge of customers with that value, or a flip of its effect."""

    kind: Kind = Kind.NONE
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        match self.kind:
            case Kind.NONE:
                return "nothing changes"
            case Kind.FLIP:
                return f"the effect of {self.column} turns round"
            case Kind.RAISE:
                return f"{self.column} × {self.value}"
            case _:
                return f"more customers with {self.column} = {self.value}"


class Table:
    """The real rows, the newest of each customer, and how leaving depends on them.

    Raises:
        ContractError: the rows break the contract, or too few customers churned.
        SourceError: the rows cannot be read.
    """

    def __init__(self) -> None:
        frame, _ = typed(read(str(paths.RAW)))
        frame = frame.sort_values([TIMESTAMP, ENTITY], kind="stable").drop_duplicates(ENTITY, keep="last")
        self.rows = frame[~_breaking(frame)].reset_index(drop=True)
        if (churners := int(self.rows[LABEL].sum())) < LEAST_CHURNERS or len(self.rows) - churners < LEAST_CHURNERS:
            raise ContractError(
                f"{paths.RAW}: expected at least {LEAST_CHURNERS} customers who churned and as many who did not, "
                f"got {churners} and {len(self.rows) - churners}: too few to simulate months; bring more rows"
            )

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return encoded_names(self.rows)

    @cached_property
    def _model(self) -> Any:
        from sklearn.ensemble import GradientBoostingClassifier

        model = GradientBoostingClassifier(n_estimators=100, max_depth=3, max_features=0.3, min_samples_leaf=20, random_state=0)
        return model.fit(self._encoded(self.rows), self.rows[LABEL].to_numpy(dtype=bool))

    def _encoded(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        return encode(derive(_columns(frame)), self._names).astype(np.float64)

    def log_odds(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """(n,) log-odds of leaving within the horizon."""
        return np.asarray(self._model.decision_function(self._encoded(frame)))

    @cached_property
    def auc(self) -> dict[str, float]:
        """How well each feature alone orders the customers by leaving: |ROC-AUC − 0.5|; a text by its values' churn rates."""
        y = self.rows[LABEL].to_numpy(dtype=bool)
        return {each.name: abs(roc_auc(y, self.strength(each)) - 0.5) for each in RAW_FEATURES}

    def strength(self, column: Column) -> npt.NDArray[np.float64]:
        """(n,) the feature as numbers: itself, or the churn rate of its value."""
        values = self.rows[column.name]
        if isinstance(column.kind, Integer | Real):
            return np.asarray(values.astype(np.float64).fillna(float(values.median())), dtype=np.float64)
        if isinstance(column.kind, Date):
            return np.nan_to_num(np.asarray(computable(self.rows)[column.name], dtype=np.float64))
        texts = values.astype(str)
        return np.asarray(texts.map(self.rows[LABEL].astype(float).groupby(texts).mean()), dtype=np.float64)

    def flipped(self, frame: pd.DataFrame, column: str) -> pd.DataFrame:
        """The frame with the column turned round: the largest number for the smallest, the most loyal value for the least."""
        if isinstance(BY_NAME[column].kind, Integer | Real):
            known = np.sort(self.rows[column].dropna().to_numpy())
            place = np.searchsorted(known, frame[column].to_numpy(dtype=np.float64)) / len(known)
            turned = known[((1 - np.clip(place, 0, 1)) * (len(known) - 1)).round().astype(int)]
            return frame.assign(**{column: pd.Series(turned, index=frame.index).where(frame[column].notna())})
        values = self.rows[column]
        rates = self.rows[LABEL].astype(float).groupby(values.astype(object)).mean().sort_values()
        opposite = dict(zip(rates.index, rates.index[::-1], strict=True))
        turned = frame[column].astype(object).map(opposite).where(frame[column].notna(), None)
        return frame.assign(
            **{column: turned.astype(values.dtype) if not isinstance(values.dtype, pd.CategoricalDtype) else turned}
        )


def proposed(table: Table, kind: Kind) -> Change:
    """The change of that kind to the column that says most of leaving.

    Raises:
        ContractError: no column can change in that way.
    """
    columns = {each.name: each for each in RAW_FEATURES}
    by_auc = sorted(table.auc, key=lambda name: (-table.auc[name], name))
    match kind:
        case Kind.NONE:
            return Change()
        case Kind.RAISE:
            fits = [
                name
                for name in by_auc
                if isinstance(columns[name].kind, Integer | Real)
                and columns[name].grows_by is None
                and not columns[name].fixed
                and table.rows[name].nunique() > 10
                and float(table.rows[name].median() or 0) > 0
            ]
            value = "1.2"
        case Kind.SURGE:
            fits = [name for name in by_auc if isinstance(columns[name].kind, Category)]
            value = ""
        case _:
            fits = [name for name in by_auc if not isinstance(columns[name].kind, Date)]
            value = ""
    if not fits:
        raise ContractError(f"contract.py: no column for the scenario {kind}: choose another, such as flip")
    if kind is Kind.SURGE:
        rates = table.rows[LABEL].astype(float).groupby(table.rows[fits[0]].astype(str)).mean()
        value = str(rates.idxmax())
    return Change(kind, fits[0], value)


def checked(change: Change, table: Table) -> Change:
    """The change, if the contract allows it.

    Raises:
        ContractError: it does not.
    """
    column = BY_NAME.get(change.column)
    if change.kind is Kind.NONE:
        return change
    if column not in RAW_FEATURES:
        raise ContractError(f"demo: expected a feature of the contract for {change.kind}, got {change.column!r}")
    if change.kind is Kind.RAISE:
        if not isinstance(column.kind, Integer | Real):
            raise ContractError(f"demo: raise: expected a number, {column.name} is {column.kind}; use --flip {column.name}")
        try:
            factor = float(change.value)
        except ValueError:
            factor = 0.0
        if not 0 < factor < 100:
            raise ContractError(f"demo: raise: expected COLUMN=FACTOR with a factor between 0 and 100, got {change.value!r}")
    if change.kind is Kind.SURGE and change.value not in set(table.rows[column.name].astype(str)):
        raise ContractError(f"demo: surge: no row has {column.name} = {change.value!r}")
    return change


class TableWorld:
    """One company; every `step` is a month. The same arguments give the same rows.

    `hazard` (n,) holds the true probability of leaving of each row of the last step.
    """

    def __init__(self, customers: int, seed: int, change: Change, change_month: int, *, table: Table | None = None) -> None:
        self.month = 0
        self._table = table or Table()
        self._random = np.random.default_rng(seed)
        self._change = checked(change, self._table)
        self._change_month = change_month
        self._size = customers
        self._next_name = 0
        self.hazard: npt.NDArray[np.floating[Any]] = np.empty(0)
        self._weights = _probability(self._table.log_odds(self._table.rows))
        real = self._table.rows
        picks = np.arange(customers)
        if customers > len(real):
            picks[len(real) :] = self._random.integers(len(real), size=customers - len(real))
        self._rows = real.iloc[picks].reset_index(drop=True)
        named = min(customers, len(real))
        self._rows[ENTITY] = [*self._rows[ENTITY][:named], *self._names(customers - named)]

    def step(self) -> pa.Table:
        """The rows of the next month, one per customer, with the contract's columns and types."""
        self.month += 1
        self._replace(np.flatnonzero(self._rows[LABEL].to_numpy(dtype=bool)))
        self._pass_time()
        if self._changed_now:
            self._alter()
        self.hazard = self._hazard(self._rows)
        self._rows[LABEL] = self._random.random(len(self._rows)) < self.hazard
        return self._as_table()

    @property
    def _changed_now(self) -> bool:
        return self._change.kind is not Kind.NONE and self.month >= self._change_month

    def _names(self, count: int) -> list[str]:
        first, self._next_name = self._next_name, self._next_name + count
        return [f"simulated-{number:08d}" for number in range(first, first + count)]

    def _joining(self, weights: npt.NDArray[np.float64], count: int) -> pd.DataFrame:
        picks = self._random.choice(len(weights), size=count, p=weights / weights.sum())
        rows = self._table.rows.iloc[picks].reset_index(drop=True)
        rows[ENTITY] = self._names(count)
        return self._raised(rows) if self._changed_now and self._change.kind is Kind.RAISE else rows

    def _replace(self, churners: npt.NDArray[np.intp]) -> None:
        stay = self._rows[~self._rows.index.isin(churners)]
        self._rows = pd.concat([stay, self._joining(self._weights, len(churners))], ignore_index=True)

    def _pass_time(self) -> None:
        """A month passes: what grows has grown, and some customers change what is not fixed."""
        self._rows = _where_kept(self._rows, self._grown(self._rows))
        movers = np.flatnonzero(self._random.random(len(self._rows)) < MOVES)
        movable = [
            each.name for each in RAW_FEATURES if each.grows_by is None and not each.fixed and not isinstance(each.kind, Date)
        ]
        if not len(movers) or not movable:
            return
        before = self._rows.iloc[movers]
        models = self._table.rows.iloc[self._alike(before)]
        after = before.assign(**{name: models[name].to_numpy() for name in movable})
        after = self._raised(after) if self._changed_now and self._change.kind is Kind.RAISE else after
        self._rows = _placed(self._rows, movers, _where_kept(before, after))

    def _grown(self, rows: pd.DataFrame) -> pd.DataFrame:
        grown = rows.copy()
        for each in RAW_FEATURES:
            if each.grows_by is None:
                continue
            step = rows[each.grows_by] if isinstance(each.grows_by, str) else each.grows_by
            longest = self._table.rows[each.name].max()
            values = (rows[each.name].fillna(0) + step).clip(upper=longest)
            grown[each.name] = values.round(2) if isinstance(each.kind, Real) else values.round().astype(np.int64)
        return grown

    def _alike(self, rows: pd.DataFrame) -> npt.NDArray[np.intp]:
        """For each row a real one, drawn among those that are about as far in the first column that grows."""
        real = self._table.rows
        growing = next((each.name for each in RAW_FEATURES if each.grows_by is not None), None)
        if growing is None:
            return self._random.integers(len(real), size=len(rows))
        order = np.argsort(real[growing].fillna(0).to_numpy(), kind="stable")
        place = np.searchsorted(real[growing].fillna(0).to_numpy()[order], rows[growing].fillna(0).to_numpy())
        near = np.clip(place + self._random.integers(-len(real) // 20, len(real) // 20 + 1, size=len(rows)), 0, len(real) - 1)
        return np.asarray(order[near])

    def _alter(self) -> None:
        if self._change.kind is Kind.RAISE and self.month == self._change_month:
            self._rows = self._raised(self._rows)
        elif self._change.kind is Kind.SURGE:
            fits = np.asarray(self._table.rows[self._change.column].astype(str) == self._change.value, dtype=np.float64)
            joining: pd.DataFrame = self._joining(fits, round(SURGE * self._size))
            self._rows = pd.concat([self._rows, joining], ignore_index=True)

    def _raised(self, rows: pd.DataFrame) -> pd.DataFrame:
        name, factor = self._change.column, float(self._change.value)
        values = rows[name] * factor
        is_integer = isinstance(BY_NAME[name].kind, Integer)
        values = values.round() if is_integer else values.round(2)
        return _where_kept(rows, rows.assign(**{name: values.astype(rows[name].dtype)}))

    def _hazard(self, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        if not self._changed_now:
            return _probability(self._table.log_odds(rows))
        match self._change.kind:
            case Kind.FLIP:
                return _probability(self._table.log_odds(self._table.flipped(rows, self._change.column)))
            case Kind.RAISE:
                known = np.sort(self._table.rows[self._change.column].dropna().to_numpy(dtype=np.float64))
                now = rows[self._change.column].fillna(0).to_numpy(dtype=np.float64) / float(self._change.value)
                place = np.searchsorted(known, now) / len(known)
                return _probability(self._table.log_odds(rows) + REACTION * (2 * place - 1))
            case _:
                return _probability(self._table.log_odds(rows))

    def _as_table(self) -> pa.Table:
        """The rows as of this month: dates keep their distance to it."""
        now = datetime.now(UTC)
        rows = self._rows.copy()
        for each in RAW_FEATURES:
            if isinstance(each.kind, Date):
                days = computable(rows)[each.name]
                rows[each.name] = pd.Series(pd.Timestamp(now.date(), tz="UTC") - pd.to_timedelta(days, unit="D"))
        rows[TIMESTAMP] = pd.Series(pd.Timestamp(now), index=rows.index)
        return pa.Table.from_batches([batch_of(rows, COLUMNS)])


def _columns(frame: pd.DataFrame) -> dict[str, Any]:
    names = [TIMESTAMP, *(each.name for each in RAW_FEATURES)]
    columns = {name: frame[name] for name in names if name in frame}
    return columns | computable(columns)


def _breaking(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """(n,) which rows break the contract."""
    bad = np.zeros(len(frame), dtype=bool)
    for _, _, broken_rows in broken(_columns(frame)):
        bad |= np.asarray(broken_rows, dtype=bool)
    return bad


def _where_kept(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The rows after a change, but those before it where the change breaks the contract."""
    bad = _breaking(after)
    if not bad.any():
        return after
    return _placed(after, np.flatnonzero(bad), before.iloc[np.flatnonzero(bad)])


def _placed(frame: pd.DataFrame, where: npt.NDArray[np.intp], rows: pd.DataFrame) -> pd.DataFrame:
    """The frame with `rows` at these places."""
    kept = np.ones(len(frame), dtype=bool)
    kept[where] = False
    order = np.argsort(np.concatenate([np.flatnonzero(kept), where]), kind="stable")
    return pd.concat([frame[kept], rows], ignore_index=True).iloc[order].reset_index(drop=True)


def _probability(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-log_odds)))
