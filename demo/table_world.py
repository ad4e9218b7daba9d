"""A company made from any table: real rows resampled, leaving drawn from a model that was fitted on them.

- **Leaving** is drawn from gradient boosting fitted on the real rows; nobody leaves with more than the probability `CEILING`.
- **The first month has the mix of all real rows**, not of each customer's newest: where a customer has a row a month until it
  churns, the newest rows alone would have far more churned customers than a month has.
- **Every churner is replaced** by a copy of a real row under a new name, drawn by its hazard in that month: so the mix of
  customers stays, after a change too. The rows of a month are in random order.
- **Time passes** by what the contract says of each column: a column with `grows_by` grows, a `fixed` one stays, any other may
  change: each month some customers take over all of these from a real row that is about as old.
- A change after which a row would break the contract does not happen to that row.
- **A change of the world** begins with its month: more customers of one kind join; the effect of a column turns round; or a
  column is raised, and its effect becomes stronger. A raise is everyone's, so it changes leaving only by how much of the column a
  customer has beside the others: where those with much of it leave sooner, they now leave sooner still, and those with little
  later; where those with little do, the other way round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from churn import paths
from churn.adapters.rows import READABLE, batch_of, typed, violation
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
from churn.params import Params, load_params
from churn.pipeline.prepare import split

MOVES = 0.05
"""Share of customers who change their plan in a month."""
SURGE = 0.1
"""Additional customers a month in a surge, as a share of all."""
CEILING = 0.8
"""The highest probability of leaving in a month. Without it, copies of a few extreme rows would leave month after month: a column
that gives the label away, as the gate sees it."""
REACTION = 0.5
"""How a raise acts on the customer whom the column marks most as leaving: the probability goes this part of the way to the
ceiling. That of the one whom it marks least goes this part of the way to 0; the one in the middle does not react."""
FACTORS = (1.2, 1.5, 2.0)
"""By what a column is raised: the first at which the raise is seen."""
SEEN_PSI = 0.3
"""From which PSI on a raise is seen: above the bound of the watcher, 0.20."""
STRONGEST = 5
"""Among how many columns that say most of leaving the one to raise is chosen: the watcher looks at the most important."""
FLIP_LOSS, FLIP_MARGIN = 0.05, 0.03
"""The ROC-AUC that a model loses by a flip: at least so much, or the watcher does not see it; at most this margin less than what
the gate lets a candidate lose on the rows of the source."""
FEW = 20
"""Of a value with fewer rows the churn rate would be chance."""
PROBED_ROWS = 5000
"""On how many rows it is tried whether leaving can be predicted."""
MOST_ROWS = 20_000
"""Of a larger table so many rows are drawn: for the time."""


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
    """The real rows, and how leaving depends on them.

    Raises:
        ContractError: the rows break the contract, or too few customers churned for the gate to decide.
        SourceError: the rows cannot be read.
    """

    def __init__(self, params: Params | None = None) -> None:
        check_growth()
        self.params = params or load_params()
        frame = _kept(*typed(read(str(paths.RAW))))
        _require_enough(frame, self.params)
        frame = frame.sort_values([TIMESTAMP, ENTITY], kind="stable")
        self.rows = frame.sample(min(MOST_ROWS, len(frame)), random_state=0).reset_index(drop=True)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return encoded_names(self.rows)

    @cached_property
    def _model(self) -> Any:
        return _unfitted().fit(self._encoded(self.rows), self.rows[LABEL].to_numpy(dtype=bool))

    def _encoded(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        # A flipped row may break the contract, on which the derived features rely.
        return np.nan_to_num(encode(derive(_columns(frame)), self._names).astype(np.float64))

    def log_odds(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """(n,) log-odds of leaving within the horizon."""
        return np.asarray(self._model.decision_function(self._encoded(frame)))

    def require_predictable(self) -> None:
        """Check that a retrained version can have the ROC-AUC on the rows of the source that the gate requires.

        Raises:
            ContractError: out-of-fold scores have less.
        """
        from sklearn.model_selection import cross_val_predict

        rows, least = self.rows.head(PROBED_ROWS), self.params.evaluate.gate.source_min_auc
        y = rows[LABEL].to_numpy(dtype=bool)
        area = roc_auc(y, cross_val_predict(_unfitted(), self._encoded(rows), y, cv=3, method="decision_function"))
        if area < least:
            raise ContractError(
                f"{paths.RAW}: expected features that predict leaving with a ROC-AUC of at least {least:g}, as the gate does of "
                f"a retrained version, got {area:.4f}; add features, or lower evaluate.gate.source_min_auc in params.yaml"
            )

    @cached_property
    def areas(self) -> dict[str, float]:
        """The ROC-AUC of each feature alone: above 0.5, those with much of it leave sooner. A text counts by its churn rate."""
        y = self.rows[LABEL].to_numpy(dtype=bool)
        return {each.name: roc_auc(y, self.strength(each)) for each in RAW_FEATURES}

    def strength(self, column: Column) -> npt.NDArray[np.float64]:
        """(n,) the feature as numbers: itself, or the churn rate of its value."""
        values = self.rows[column.name]
        if isinstance(column.kind, Integer | Real):
            return np.asarray(values.astype(np.float64).fillna(float(values.median())), dtype=np.float64)
        if isinstance(column.kind, Date):
            return np.nan_to_num(np.asarray(computable(self.rows)[column.name], dtype=np.float64))
        return np.asarray(values.astype(str).map(self.rates(column.name)), dtype=np.float64)

    def rates(self, column: str) -> "pd.Series[float]":
        """The churn rate of each value, as text; that of all rows for a value of fewer than `FEW` rows."""
        labels = self.rows[LABEL].astype(float)
        groups = labels.groupby(self.rows[column].astype(str))
        return groups.mean().where(groups.size() >= FEW, labels.mean())

    def flipped(self, frame: pd.DataFrame, column: str) -> pd.DataFrame:
        """The frame with the column turned round: the largest number for the smallest, the most loyal value for the least."""
        if isinstance(BY_NAME[column].kind, Integer | Real):
            numbers = np.sort(self.rows[column].dropna().to_numpy())
            place = np.searchsorted(numbers, frame[column].to_numpy(dtype=np.float64, na_value=np.nan)) / len(numbers)
            turned = numbers[((1 - np.clip(place, 0, 1)) * (len(numbers) - 1)).round().astype(int)]
            return frame.assign(**{column: pd.Series(turned, index=frame.index).where(frame[column].notna())})
        values = self.rows[column]
        rates = self.rates(column)
        known = sorted(values.dropna().unique(), key=lambda value: (rates[str(value)], str(value)))
        opposite = dict(zip(known, known[::-1], strict=True))
        turned = frame[column].astype(object).map(opposite).where(frame[column].notna(), None)
        return frame.assign(
            **{column: turned.astype(values.dtype) if not isinstance(values.dtype, pd.CategoricalDtype) else turned}
        )


def _unfitted() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=100, max_depth=3, max_features=0.3, min_samples_leaf=20, random_state=0)


def proposed(table: Table, kind: Kind) -> Change:
    """The change of that kind to the column that says most of leaving.

    Raises:
        ContractError: no column can change in that way.
    """
    columns = {each.name: each for each in RAW_FEATURES}
    by_auc = sorted(table.areas, key=lambda name: (-abs(table.areas[name] - 0.5), name))
    match kind:
        case Kind.NONE:
            return Change()
        case Kind.RAISE:
            return _proposed_raise(table, [name for name in by_auc if isinstance(columns[name].kind, Integer | Real)])
        case Kind.SURGE:
            return _proposed_surge(table, [name for name in by_auc if isinstance(columns[name].kind, Category)])
        case _:
            return _proposed_flip(table, [name for name in by_auc if not isinstance(columns[name].kind, Date)])


def _proposed_surge(table: Table, categories: list[str]) -> Change:
    if not categories:
        raise ContractError("contract.py: expected a Category for the scenario surge, got none; choose another, such as raise")
    values = table.rows[categories[0]].dropna().astype(str).unique()
    return Change(Kind.SURGE, categories[0], str(table.rates(categories[0])[values].idxmax()))


def _proposed_flip(table: Table, names: list[str]) -> Change:
    """The column that says most of leaving among those whose flip the watcher sees, and after which the gate accepts a new model.

    Raises:
        ContractError: there is none.
    """
    y, bounds = table.rows[LABEL].to_numpy(dtype=bool), table.params.evaluate.gate
    before = roc_auc(y, table.log_odds(table.rows))
    for name in names:
        after = roc_auc(y, table.log_odds(table.flipped(table.rows, name)))
        accepted = max(bounds.source_min_auc, before - bounds.source_auc_margin) + FLIP_MARGIN
        if before - after >= FLIP_LOSS and after >= accepted:
            return Change(Kind.FLIP, name)
    raise ContractError(
        f"contract.py: expected a column whose flip costs a model at least {FLIP_LOSS:g} of ROC-AUC, which the watcher sees, and "
        "no more than the gate accepts (source_auc_margin), got none; choose another scenario, or name it: --flip COLUMN"
    )


def _proposed_raise(table: Table, numbers: list[str]) -> Change:
    """The smallest raise that is seen in one of the columns, of which the first say most of leaving.

    Raises:
        ContractError: there is none.
    """
    movable = [name for name in numbers if BY_NAME[name].grows_by is None and not BY_NAME[name].fixed][:STRONGEST]
    for factor in FACTORS:
        for name in movable:
            if _psi(table.rows[name], raised(table.rows, name, factor)[name]) >= SEEN_PSI:
                return Change(Kind.RAISE, name, f"{factor:g}")
    raise ContractError(
        f"contract.py: expected a number that can rise by {FACTORS[-1]:g} visibly and within its range, got none among the "
        f"{STRONGEST} that say most of leaving; choose another scenario, such as flip"
    )


def _psi(before: "pd.Series[Any]", after: "pd.Series[Any]") -> float:
    """The population stability index as the watcher's library counts it: over equal intervals, or over few values."""
    old, new = (each.dropna().to_numpy(dtype=np.float64) for each in (before, after))
    if not len(old):
        return 0.0
    values = np.unique(np.concatenate([old, new]))
    if len(np.unique(old)) <= FEW:
        edges = np.append(values, values[-1] + 1)
    else:
        edges = np.histogram_bin_edges(np.concatenate([old, new]), bins="sturges")
    shares = [np.maximum(np.histogram(each, edges)[0] / len(each), 0.0001) for each in (old, new)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def raised(rows: pd.DataFrame, name: str, factor: float) -> pd.DataFrame:
    """The rows with the column × factor; a row that would then break the contract stays as it is."""
    values = rows[name] * factor
    values = values.round() if isinstance(BY_NAME[name].kind, Integer) else values.round(2)
    return _where_kept(rows, rows.assign(**{name: values.astype(rows[name].dtype)}))


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
        self._rows = self._first_rows()

    def step(self) -> pa.Table:
        """The rows of the next month, one per customer, with the contract's columns and types."""
        self.month += 1
        self._replace(np.flatnonzero(self._rows[LABEL].to_numpy(dtype=bool)))
        self._pass_time()
        if self._now is Kind.SURGE:
            self._surge()
        self._rows = self._rows.iloc[self._random.permutation(len(self._rows))].reset_index(drop=True)
        self.hazard = self._leaving(self._rows)
        self._rows[LABEL] = self._random.random(len(self._rows)) < self.hazard
        return self._as_table()

    @property
    def _now(self) -> Kind:
        return self._change.kind if self.month >= self._change_month else Kind.NONE

    @property
    def _factor(self) -> float:
        """By what the raised column is multiplied in this month."""
        return float(self._change.value) if self._now is Kind.RAISE else 1.0

    def _first_rows(self) -> pd.DataFrame:
        """Real rows; each customer's first row has its name, any other a new one."""
        real = self._table.rows
        picks = self._random.permutation(len(real))[: self._size]
        more = self._random.integers(len(real), size=self._size - len(picks))
        rows = real.iloc[np.concatenate([picks, more])].reset_index(drop=True)
        repeated = rows[ENTITY].duplicated().to_numpy()
        rows.loc[repeated, ENTITY] = self._names(int(repeated.sum()))
        return rows

    def _names(self, count: int) -> list[str]:
        first, self._next_name = self._next_name, self._next_name + count
        return [f"simulated-{number:08d}" for number in range(first, first + count)]

    def _joining(self, weights: npt.NDArray[np.float64], count: int) -> pd.DataFrame:
        picks = self._random.choice(len(weights), size=count, p=weights / weights.sum())
        rows = self._table.rows.iloc[picks].reset_index(drop=True)
        rows[ENTITY] = self._names(count)
        return rows

    def _replace(self, churners: npt.NDArray[np.intp]) -> None:
        stay = self._rows[~self._rows.index.isin(churners)]
        self._rows = pd.concat([stay, self._joining(self._leaving(self._table.rows), len(churners))], ignore_index=True)

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
        self._rows = _placed(self._rows, movers, _where_kept(before, after))

    def _grown(self, rows: pd.DataFrame) -> pd.DataFrame:
        grown = rows.copy()
        for each in RAW_FEATURES:
            if each.grows_by is None:
                continue
            step = rows[each.grows_by] if isinstance(each.grows_by, str) else each.grows_by
            step = step * self._factor if each.grows_by == self._change.column else step
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

    def _surge(self) -> None:
        fits = np.asarray(self._table.rows[self._change.column].astype(str) == self._change.value, dtype=np.float64)
        joining: pd.DataFrame = self._joining(fits, round(SURGE * self._size))
        self._rows = pd.concat([self._rows, joining], ignore_index=True)

    def _leaving(self, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        """(n,) probability of leaving."""
        match self._now:
            case Kind.FLIP:
                return _hazard(self._table.log_odds(self._table.flipped(rows, self._change.column)))
            case Kind.RAISE:
                return _reacted(_hazard(self._table.log_odds(rows)), self._standing(rows[self._change.column]))
            case _:
                return _hazard(self._table.log_odds(rows))

    def _standing(self, values: "pd.Series[Any]") -> npt.NDArray[np.float64]:
        """(n,) from −1 for the real value that is least on the side of leaving to 1 for the one that is most; 0 for a null."""
        known = np.sort(self._table.rows[values.name].dropna().to_numpy(dtype=np.float64))
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        below, up_to = (np.searchsorted(known, numbers, side=side) for side in ("left", "right"))
        standing = np.where(np.isnan(numbers), 0.0, (below + up_to) / len(known) - 1)
        return standing if self._table.areas[str(values.name)] >= 0.5 else -standing

    def _as_table(self) -> pa.Table:
        """The rows as of this month: dates keep their distance to it."""
        now = datetime.now(UTC)
        rows = raised(self._rows, self._change.column, self._factor) if self._now is Kind.RAISE else self._rows.copy()
        for each in RAW_FEATURES:
            if isinstance(each.kind, Date):
                days = computable(rows)[each.name]
                rows[each.name] = pd.Series(pd.Timestamp(now.date(), tz="UTC") - pd.to_timedelta(days, unit="D"))
        rows[TIMESTAMP] = pd.Series(pd.Timestamp(now), index=rows.index)
        return pa.Table.from_batches([batch_of(rows, COLUMNS)])


def _kept(frame: pd.DataFrame, unreadable: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that keep the contract, if no more break it than it allows.

    Raises:
        ContractError: more do.
    """
    advice = "`churn check` lists every mistake"
    for name, mask in unreadable.items():
        rule = READABLE.format(BY_NAME[name].kind)
        raise ContractError(f"{paths.RAW}: {violation(name, rule, int(mask.sum()), of=len(mask))}; {advice}")
    kept = np.ones(len(frame), dtype=bool)
    for name, rule, bad in broken({each.name: frame[each.name] for each in COLUMNS} | computable(frame)):
        share = BY_NAME[name].mostly if name in BY_NAME else 1.0
        if np.mean(bad) > 1 - share:
            raise ContractError(f"{paths.RAW}: {violation(name, rule, int(np.sum(bad)), of=len(frame))}; {advice}")
        kept &= ~np.asarray(bad, dtype=bool)
    return frame[kept]


def check_growth(features: Sequence[Column] = RAW_FEATURES) -> None:
    """Check that what grows is a number, and grows by a number.

    Raises:
        ContractError: it is not.
    """
    numbers = [each.name for each in features if isinstance(each.kind, Integer | Real)]
    for each in features:
        if each.grows_by is None:
            continue
        if each.name not in numbers or each.fixed:
            raise ContractError(f"contract.py: {each.name}: grows_by: expected an Integer or Real that is not fixed; remove it")
        if isinstance(each.grows_by, str) and each.grows_by not in numbers:
            raise ContractError(
                f"contract.py: {each.name}: grows_by: expected a number, or the name of an Integer or Real column, "
                f"got {each.grows_by!r}"
            )


def _require_enough(frame: pd.DataFrame, params: Params) -> None:
    """Check that the gate could decide on the first version.

    Raises:
        ContractError: too few of the test rows churned, or did not.
    """
    _, tested = split(frame, params.prepare.test_fraction, params.prepare.split)
    churned, least = int(tested[LABEL].sum()), params.evaluate.gate.min_of_class
    for what, count in (("churned customers", churned), ("customers that stayed", len(tested) - churned)):
        if count < least:
            raise ContractError(
                f"{paths.RAW}: expected at least {least} {what} among the test rows (with fewer, the gate does not decide), "
                f"got {count} of {len(tested)}; bring more rows"
            )


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


def _hazard(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n,) probabilities, at most `CEILING`."""
    return np.minimum(1 / (1 + np.exp(-log_odds)), CEILING)


def _reacted(hazard: npt.NDArray[np.float64], standing: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n,) the hazard after a raise of a column in which the customers have that standing."""
    way = REACTION * np.abs(standing)
    return np.asarray(np.where(standing > 0, hazard + way * (CEILING - hazard), hazard * (1 - way)))
