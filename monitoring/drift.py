"""Drift of a window against the version's reference: Evidently computes and reports, the bounds are ours."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import log2, sqrt
from typing import Any

import numpy as np
import pandas as pd

from churn.contract import Category, Flag, Grouped
from churn.features import FEATURES
from monitoring.policy import Verdict

SCORE = "churn_probability"
OTHERS = "(others)"
"""In place of the values of a `Grouped` feature that are no inputs of the version."""
MISSING = " is missing"
"""After a feature's name: a column that says where it is null. PSI itself does not see nulls."""

WARN_PSI, DRIFT_PSI = 0.10, 0.20
"""Source: Siddiqi, 2006, "Credit Risk Scorecards": below 0.10 little change, above 0.20 (0.25 there) a large one."""
FALSE_ALARMS = 0.01
"""The probability that any feature of an undrifted window passes its bound by chance."""
IMPORTANT = 5
DRIFTED_FEATURES = 3
LARGE_PSI = 0.50
"""A shift that counts whatever the feature's importance: derived features share that out, so that a price may be in none of the
first five places."""
MIN_SHIFT, SIGMAS = 0.05, 3.0
CLEAN = 0.8
"""A window is clean if everything is below this part of the bounds."""


@dataclass(frozen=True)
class Psi:
    """The population stability index of one column, and the bounds from which it warns and counts as drift."""

    name: str
    value: float
    warn: float
    bound: float
    is_important: bool = False

    @property
    def is_drifted(self) -> bool:
        """At or above the bound."""
        return self.value >= self.bound


@dataclass(frozen=True)
class Drift:
    """What a window of `rows` rows shows against the reference. `broken` names features that are all null."""

    rows: int
    features: tuple[Psi, ...]
    broken: tuple[str, ...]
    score: Psi
    positive_rate: float
    reference_rate: float
    rate_bound: float

    @cached_property
    def drifted(self) -> tuple[str, ...]:
        """The features that drifted, those that are all null among them."""
        return (*self.broken, *(each.name for each in self.features if each.is_drifted))

    @property
    def shift(self) -> float:
        """By how much the share of rows at or above the threshold moved."""
        return self.positive_rate - self.reference_rate

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why the window as a whole counts as drifted; empty if it does not."""
        bounds = {each.name: each.bound if each.is_important else max(each.bound, LARGE_PSI) for each in self.features}
        found = [
            f"{each.name} PSI {each.value:.2f} ≥ {bounds[each.name]:.2f}"
            for each in self.features
            if each.value >= bounds[each.name]
        ]
        if self.broken:
            found.append(f"{', '.join(self.broken)} all null")
        if len(self.drifted) >= DRIFTED_FEATURES:
            found.append(f"{len(self.drifted)} features drifted ({', '.join(self.drifted[:5])})")
        if self.score.is_drifted:
            found.append(f"score PSI {self.score.value:.2f} ≥ {self.score.bound:.2f}")
        if abs(self.shift) >= self.rate_bound:
            found.append(f"positive rate {self.positive_rate:.3f}, reference {self.reference_rate:.3f}")
        return tuple(found)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What moved, whether or not the window as a whole counts as drifted."""
        moved = [each for each in (*self.features, self.score) if each.value >= each.warn]
        return tuple(f"{each.name} PSI {each.value:.2f}" for each in sorted(moved, key=lambda each: -each.value))

    def verdict(self, *, min_rows: int) -> Verdict:
        """What the window says; one with fewer than `min_rows` rows may only warn."""
        if self.reasons:
            return Verdict.BAD if self.rows >= min_rows else Verdict.WARN
        if self.warnings:
            return Verdict.WARN
        near = max(each.value / each.bound for each in (*self.features, self.score))
        return Verdict.CLEAN if max(near, abs(self.shift) / self.rate_bound) < CLEAN else Verdict.BETWEEN


def noise(rows: int, reference_rows: int, bins: int, columns: int) -> float:
    """The PSI that chance alone stays below, with probability 1 - `FALSE_ALARMS` in all of `columns` columns together.

    Source: Yurdakul and Naranjo, 2020, "Statistical properties of the population stability index": without drift, the PSI is
    distributed as (1/n + 1/m) times chi-squared with bins - 1 degrees of freedom.
    """
    from scipy.stats import chi2

    return float((1 / rows + 1 / reference_rows) * chi2.ppf(1 - FALSE_ALARMS / columns, max(bins - 1, 1)))


def measure(
    window: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    important: Sequence[str],
    threshold: float,
    inputs: Sequence[str] = (),
    report: "Report | None" = None,
) -> Drift:
    """Compare the features and the score of the window with the reference; writes the report, if one is wanted.

    Both hold every feature of the contract and `churn_probability`, at least one row each. `inputs` are the version's: `Grouped`
    features are compared by their values among them.
    """
    window, reference = _grouped(window, inputs), _grouped(reference, inputs)
    columns = [each.name for each in FEATURES]
    broken = tuple(name for name in columns if window[name].isna().all() and not reference[name].isna().all())
    current, before = _comparable(window, reference, [name for name in columns if name not in broken])
    compared = [str(name) for name in current]
    features = [name for name in compared if name != SCORE]
    bounds = {name: noise(len(current), len(before), _bins(name, current, before), len(features)) for name in compared}
    found = {
        name: Psi(name, _psi(current, before, name), max(WARN_PSI, bound), max(DRIFT_PSI, bound), name in important)
        for name, bound in bounds.items()
    }
    if report:
        report.add(_report(current, before, {name: each.bound for name, each in found.items()}, report.labels), report.name)
    rate, reference_rate = (float((each[SCORE] >= threshold).mean()) for each in (window, reference))
    spread = sqrt(reference_rate * (1 - reference_rate) * (1 / len(window) + 1 / len(reference)))
    return Drift(
        rows=len(window),
        features=tuple(found[name] for name in features),
        broken=broken,
        score=found[SCORE],
        positive_rate=rate,
        reference_rate=reference_rate,
        rate_bound=max(MIN_SHIFT, SIGMAS * spread),
    )


@dataclass(frozen=True)
class Report:
    """A full report is wanted: `add` takes Evidently's result and `name`; `labels` are written into it."""

    add: Callable[[Any, str], None]
    name: str
    labels: dict[str, str]


TEXTS = {each.name: each.null_as for each in FEATURES if isinstance(each.kind, Category | Flag | Grouped)}
"""The features that are compared by their values, and what a null is among these."""
GROUPED = tuple(each.name for each in FEATURES if isinstance(each.kind, Grouped))


def is_text(name: str) -> bool:
    """True if the feature is compared by its values rather than by its range."""
    return name in TEXTS or name.endswith(MISSING)


def _grouped(frame: pd.DataFrame, inputs: Sequence[str]) -> pd.DataFrame:
    """The frame, where the values of `Grouped` features are nulls, inputs, or `OTHERS`."""
    groups: dict[str, Any] = {}
    for name in GROUPED:
        kept = frame[name].isna() | (name + "=" + frame[name].astype(str)).isin(inputs)
        groups[name] = frame[name].astype(object).where(kept, OTHERS)
    return frame.assign(**groups)


def _texts(values: "pd.Series[Any]", null_as: object) -> "pd.Series[str]":
    return (values if null_as is None else values.astype(object).where(values.notna(), null_as)).astype(str)


def _comparable(window: pd.DataFrame, reference: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both with the same types: another type of the same value would count as drift. What the reference lacks is left out."""
    names = [name for name in names if not reference[name].isna().all()]
    frames = []
    for frame in (window, reference):
        columns = {name: _texts(frame[name], TEXTS[name]) if is_text(name) else frame[name].astype(float) for name in names}
        for name in names:
            if not TEXTS.get(name) and (window[name].isna().any() or reference[name].isna().any()):
                columns[name + MISSING] = frame[name].isna().astype(str)
        frames.append(pd.DataFrame({**columns, SCORE: frame[SCORE].astype(float)}))
    return frames[0], frames[1]


def _bins(name: str, current: pd.DataFrame, before: pd.DataFrame) -> int:
    """How many bins Evidently's PSI uses: the values of texts and of numbers with few values, else Sturges' number."""
    if is_text(name) or before[name].nunique() <= 20:
        return int(pd.concat([current[name], before[name]]).nunique())
    return int(np.ceil(log2(len(current) + len(before)))) + 1


def _psi(current: pd.DataFrame, before: pd.DataFrame, name: str) -> float:
    """The PSI of a column as Evidently computes it, without the drawings that its reports make of every column."""
    with _quiet():
        from evidently.legacy.calculations.stattests.psi import psi_stat_test
        from evidently.legacy.core import ColumnType

        kind = ColumnType.Categorical if is_text(name) else ColumnType.Numerical
        return float(psi_stat_test.func(before[name].dropna(), current[name].dropna(), kind, DRIFT_PSI)[0])


def _report(current: pd.DataFrame, before: pd.DataFrame, bounds: dict[str, float], labels: dict[str, str]) -> Any:
    """Evidently's result with the same method and bounds, and what else a person may want to see."""
    with _quiet():
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import DriftedColumnsCount, MissingValueCount, RowCount, ValueDrift

        texts = [name for name in bounds if is_text(name)]
        shown = [name for name in bounds if name != SCORE]
        definition = DataDefinition(numerical_columns=[name for name in bounds if name not in texts], categorical_columns=texts)
        metrics: list[Any] = [
            RowCount(),
            DriftedColumnsCount(columns=shown, method="psi", threshold=DRIFT_PSI, drift_share=DRIFTED_FEATURES / len(shown)),
            *(ValueDrift(column=name, method="psi", threshold=bound) for name, bound in bounds.items()),
            *(MissingValueCount(column=name) for name in shown if not name.endswith(MISSING)),
        ]
        report = Report(metrics, include_tests=True, metadata=dict(labels))
        return report.run(*(Dataset.from_pandas(each, data_definition=definition) for each in (current, before)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of Evidently's own divisions by zero, and of its libraries."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
