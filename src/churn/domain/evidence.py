"""What the gate decides on: estimates with their intervals from the test rows. The same rows give the same figures.

`customers` (n,) numbers each row's customer from 0: rows of one customer are not independent, and every standard error adds them
up before it squares them. Source: Liang and Zeger, 1986, "Longitudinal Data Analysis Using Generalized Linear Models".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from churn.domain import metrics
from churn.domain.encoding import Matrix
from churn.domain.metrics import Interval, Labels, Probabilities

Customers = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

LEVEL = 0.9
"""Of a two-sided interval; each of its sides alone holds at 95 %."""
SLICES_ERROR = 0.05
"""The chance that some slice's interval misses its value, over all slices (Bonferroni)."""
SLICE_MIN_OF_CLASS = 10
"""Churned customers, and others, that a slice needs. With 30, half of the groups would go unseen, and no fewer would be wrong."""
CHANCE_DRAWS = 200
CHANCE_SD = 2.33
"""One in a hundred draws lies above the mean by so many standard deviations."""
END_ROWS = 50
"""How many rows at one end of a column are examined for a leak, with all that have the same value as the last."""


@dataclass(frozen=True)
class SourceRows:
    """Scores on test rows that did not come through the API: how many churned, how many did not, ROC-AUC.

    The champion's is None where there is no champion to compare with.
    """

    churned: int
    others: int
    roc_auc: float
    champion_roc_auc: float | None = None


@dataclass(frozen=True)
class Columns:
    """How well each column of the model's input predicts alone, beside the model, on the same rows.

    `alone`: ROC-AUC of the column, or of its negative, whichever is larger. `at_end`: the churn rate among the rows with its
    largest values, or with its smallest, whichever is higher.
    """

    roc_auc: float
    churn_rate: float
    alone: dict[str, float]
    at_end: dict[str, float]


@dataclass(frozen=True)
class SliceGap:
    """Candidate minus champion on one group of the test rows."""

    log_loss: Interval
    champion_log_loss: float
    roc_auc: Interval


@dataclass(frozen=True)
class Evidence:
    """What the gate decides on, from scores of several models on the same test rows.

    `skill` is the candidate's log loss minus that of giving every row the churn rate, `baseline` minus the baseline's, `mean` its
    mean probability minus the churn rate, `chance_ece` the calibration error that right probabilities would show on so many rows.
    The champion's parts are None for the first version ever, and for rows of one class; `columns` where they were not examined.
    `newer_days`: by how much the newest row of the candidate's workspace is newer than that of the champion's; None where that is
    not known. `source`: None where no test row came through the API.
    """

    churned: int
    others: int
    roc_auc: float
    skill: Interval
    baseline: Interval
    mean: Interval
    slope: Interval
    ece: float
    chance_ece: float
    champion: dict[str, Interval] | None = None
    slices: dict[str, SliceGap] | None = None
    newer_days: float | None = None
    source: SourceRows | None = None
    columns: Columns | None = None

    @property
    def churn_rate(self) -> float:
        """The share of the test rows that churned."""
        return self.churned / (self.churned + self.others)


def gather(
    y: Labels,
    probabilities: Mapping[str, Probabilities],
    *,
    customers: Customers,
    masks: Mapping[str, Mask],
    samples: int,
    seed: int,
) -> Evidence:
    """The evidence of (n,) probabilities of `candidate`, `baseline` and maybe `champion`; `masks` has the rows of each group."""
    candidate, champion = probabilities["candidate"], probabilities.get("champion")
    rate = np.full(len(y), y.mean())
    beside = {}
    if champion is not None and metrics.has_both_classes(y):
        beside = {
            "champion": metrics.paired_bootstrap(y, candidate, champion, samples=samples, seed=seed, customers=customers),
            "slices": slice_gaps(y, candidate, champion, masks, customers),
        }
    return Evidence(
        churned=int(y.sum()),
        others=int((~y).sum()),
        roc_auc=metrics.roc_auc(y, candidate),
        skill=log_loss_gap(y, candidate, rate, customers),
        baseline=log_loss_gap(y, candidate, probabilities["baseline"], customers),
        mean=_mean(candidate - y, customers, LEVEL),
        slope=slope(y, candidate, customers),
        ece=metrics.expected_calibration_error(y, candidate),
        chance_ece=chance_ece(candidate, seed),
        **beside,  # type: ignore[arg-type]
    )


def log_loss_gap(y: Labels, p: Probabilities, other: Probabilities, customers: Customers, level: float = LEVEL) -> Interval:
    """Log loss of `p` minus that of `other` on the same rows."""
    return _mean(metrics.losses(y, p) - metrics.losses(y, other), customers, level)


def roc_auc_gap(y: Labels, p: Probabilities, other: Probabilities, customers: Customers, level: float = LEVEL) -> Interval:
    """ROC-AUC of `p` minus that of `other` on the same rows, of which some churned and some did not.

    Source: DeLong et al., 1988, "Comparing the Areas under Two or More Correlated ROC Curves"; several rows of a customer as in
    Obuchowski, 1997, "Nonparametric Analysis of Clustered ROC Curve Data".
    """
    placed = _placements(y, p) - _placements(y, other)
    gap = float(placed[y].mean())
    influence = (placed - gap) / np.where(y, y.sum(), (~y).sum())
    return _around(gap, influence, customers, level)


def _placements(y: Labels, p: Probabilities) -> Probabilities:
    """Per row, the share of the other class that it is on the right side of; a tie counts half. The mean is ROC-AUC."""
    placed = np.empty(len(y))
    for of, others in ((y, np.sort(p[~y])), (~y, np.sort(p[y]))):
        below, up_to = (np.searchsorted(others, p[of], side=side) for side in ("left", "right"))
        placed[of] = (below + up_to) / 2 / len(others)
    placed[~y] = 1 - placed[~y]
    return placed


def slope(y: Labels, p: Probabilities, customers: Customers, level: float = LEVEL) -> Interval:
    """The calibration slope: below 1 the probabilities are too extreme, above 1 not extreme enough; NaN for one class alone."""
    if not metrics.has_both_classes(y):
        return Interval(float("nan"), float("nan"), float("nan"))
    odds, intercept, value = metrics.calibration_line(y, p)
    fitted = 1 / (1 + np.exp(-(intercept + value * odds)))
    weights = fitted * (1 - fitted)
    # Centred, so that the intercept's error does not count.
    centred = odds - weights @ odds / weights.sum()
    information = weights @ centred**2
    if information < 1e-9:  # one probability for all: any slope fits
        return Interval(value, -np.inf, np.inf)
    return _around(value, centred * (y - fitted) / information, customers, level)


def chance_ece(p: Probabilities, seed: int) -> float:
    """The calibration error that 1 of 100 draws of labels from the probabilities themselves would exceed.

    A binned calibration error is positive for right probabilities too, the more the fewer the rows. Source: Bröcker and Smith,
    2007, "Increasing the Reliability of Reliability Diagrams".
    """
    rng, ranked = np.random.default_rng(seed), np.sort(p)
    starts = [part[0] for part in np.array_split(np.arange(len(p)), metrics.BINS) if len(part)]
    drawn = [np.abs(np.add.reduceat((rng.random(len(p)) < ranked) - ranked, starts)).sum() / len(p) for _ in range(CHANCE_DRAWS)]
    return float(np.mean(drawn) + CHANCE_SD * np.std(drawn))


def slice_gaps(
    y: Labels, candidate: Probabilities, champion: Probabilities, masks: Mapping[str, Mask], customers: Customers
) -> dict[str, SliceGap]:
    """Candidate against champion in each group with enough rows of both classes; all intervals hold together at 95 %."""
    large = {name: mask for name, mask in masks.items() if min(y[mask].sum(), (~y[mask]).sum()) >= SLICE_MIN_OF_CLASS}
    level = 1 - SLICES_ERROR / max(1, len(large))
    return {
        name: SliceGap(
            log_loss_gap(y[mask], candidate[mask], champion[mask], customers[mask], level),
            metrics.log_loss(y[mask], champion[mask]),
            roc_auc_gap(y[mask], candidate[mask], champion[mask], customers[mask], level),
        )
        for name, mask in large.items()
    }


def columns(X: Matrix, y: Labels, p: Probabilities, names: tuple[str, ...]) -> Columns:
    """How well each of the (n, k) columns predicts the (n,) labels alone, beside the probabilities of a model."""
    alone, at_end = {}, {}
    for name, column in zip(names, X.T, strict=True):
        alone[name] = separation(y, column)
        at_end[name] = max(rate_of_largest(y, column), rate_of_largest(y, -column))
    return Columns(metrics.roc_auc(y, p), float(y.mean()), alone, at_end)


def separation(y: Labels, column: npt.NDArray[np.floating[Any]]) -> float:
    """The ROC-AUC of a column (n,), or of its negative, whichever is larger; NaN where only one class is there."""
    area = metrics.roc_auc(y, column.astype(np.float64))
    return max(area, 1 - area)


def rate_of_largest(y: Labels, column: npt.NDArray[np.floating[Any]]) -> float:
    """The churn rate of the rows with the largest values: at least `END_ROWS`, and every row that ties with the last."""
    rows = min(END_ROWS, len(y))
    least = np.partition(column, -rows)[-rows]
    return float(y[column >= least].mean())


def _mean(values: Probabilities, customers: Customers, level: float) -> Interval:
    mean = float(values.mean())
    return _around(mean, (values - mean) / len(values), customers, level)


def _around(value: float, influence: Probabilities, customers: Customers, level: float) -> Interval:
    """The value with the interval of the level, from (n,) influences of the rows: their customers' sums, squared and added."""
    sums = np.bincount(customers, weights=influence)
    width = NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt(sums @ sums))
    return Interval(value, value - width, value + width)
