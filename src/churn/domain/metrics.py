"""Pure scores: quality, calibration, profit, paired bootstrap, slices, fairness."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from churn.contract import BY_NAME, Columns, Flag, Slice, filled
from churn.params import Costs

Labels = npt.NDArray[np.bool_]
Probabilities = npt.NDArray[np.float64]

EPSILON = 1e-7
BINS = 10
"""Of equal count, in what compares predicted and observed rates."""


def roc_auc(y: Labels, p: Probabilities) -> float:
    """Area under the ROC curve of (n,) labels and probabilities; NaN where only one class is there."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, p)) if has_both_classes(y) else float("nan")


def has_both_classes(y: Labels) -> bool:
    """True if some of the rows churned and some did not."""
    return bool(0 < y.sum() < len(y))


def log_loss(y: Labels, p: Probabilities) -> float:
    """Mean negative log likelihood, in nats."""
    return float(losses(y, p).mean())


def relative_log_loss(y: Labels, p: Probabilities) -> float:
    """The log loss, as a part of that of giving everyone the churn rate: 1 knows nothing, 0 everything; NaN for one class.

    Source: He et al., 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook" (normalized entropy).
    """
    return log_loss(y, p) / log_loss(y, np.full(len(y), y.mean())) if has_both_classes(y) else float("nan")


def losses(y: Labels, p: Probabilities) -> Probabilities:
    """The negative log likelihood of each row, in nats."""
    found: Probabilities = -np.log(np.clip(np.where(y, p, 1 - p), EPSILON, 1))
    return found


def expected_calibration_error(y: Labels, p: Probabilities, bins: int = BINS) -> float:
    """Mean gap between predicted and observed rate over bins of equal count, weighted by their rows.

    Source: Naeini et al., 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", with quantile bins.
    """
    return float(sum(len(rows) * abs(p[rows].mean() - y[rows].mean()) for rows in _bins(p, bins)) / len(y))


def _bins(p: Probabilities, bins: int) -> Iterator[npt.NDArray[np.intp]]:
    return (rows for rows in np.array_split(np.argsort(p, kind="stable"), bins) if len(rows))


def calibration_curve(y: Labels, p: Probabilities, bins: int = BINS) -> npt.NDArray[np.float64]:
    """(bins, 2): mean predicted probability and observed churn rate per bin of equal count."""
    return np.array([(p[rows].mean(), y[rows].mean()) for rows in _bins(p, bins)])


def calibration_slope(y: Labels, p: Probabilities) -> float:
    """Slope of the logistic regression of the label on the log-odds: 1 is calibrated, below 1 overconfident."""
    return calibration_line(y, p)[2]


def calibration_line(y: Labels, p: Probabilities) -> tuple[Probabilities, float, float]:
    """The (n,) log-odds of the probabilities, and intercept and slope of the logistic regression of the label on them.

    Both are NaN where only one class is there.

    Source: Cox, 1958, "Two Further Applications of a Model for Binary Regression".
    """
    from sklearn.linear_model import LogisticRegression

    clipped = np.clip(p, EPSILON, 1 - EPSILON)
    odds: Probabilities = np.log(clipped / (1 - clipped))
    if not has_both_classes(y):
        return odds, float("nan"), float("nan")
    line = LogisticRegression(C=1e6, solver="newton-cholesky", tol=1e-10).fit(odds.reshape(-1, 1), y)
    return odds, line.intercept_.item(), line.coef_.item()


def lift(y: Labels, p: Probabilities, share: float = 0.1) -> float:
    """Churn rate among the `share` of customers with the highest probability, over the churn rate of all; NaN if none churned."""
    if not y.any():
        return float("nan")
    top = np.argsort(-p, kind="stable")[: max(1, round(len(p) * share))]
    return float(y[top].mean() / y.mean())


def cost_threshold(costs: Costs) -> float:
    """The probability from which contacting a customer pays, within [0, 1].

    Contacting pays p·g·(V - o) - (1 - p)·w·o - c, for a value V, offer o, contact c, save rate g and waste rate w. It is zero at
    (c + w·o) / (g·(V - o) + w·o). Source: Elkan, 2001, "The Foundations of Cost-Sensitive Learning".
    """
    waste = costs.waste_rate * costs.offer
    gain = costs.save_rate * (costs.value - costs.offer)
    return min(1.0, (costs.contact + waste) / (gain + waste)) if gain > 0 else 1.0


def profit(y: Labels, p: Probabilities, threshold: float, costs: Costs) -> float:
    """Expected profit per customer of contacting those at or above the threshold, in the currency of the costs."""
    gain = np.where(y, costs.save_rate * (costs.value - costs.offer), -costs.waste_rate * costs.offer) - costs.contact
    return float(np.where(p >= threshold, gain, 0.0).mean())


def scores(y: Labels, p: Probabilities, costs: Costs) -> dict[str, float]:
    """Every score of one model on (n,) labels and probabilities."""
    from sklearn.metrics import average_precision_score

    threshold = cost_threshold(costs)
    return {
        "roc_auc": roc_auc(y, p),
        "pr_auc": float(average_precision_score(y, p)) if y.any() else float("nan"),
        "log_loss": log_loss(y, p),
        "relative_log_loss": relative_log_loss(y, p),
        "brier": float(((p - y) ** 2).mean()),
        "ece": expected_calibration_error(y, p),
        "calibration_slope": calibration_slope(y, p),
        "lift_at_10": lift(y, p),
        "profit_per_customer": profit(y, p, threshold, costs),
        "profit_per_customer_at_half": profit(y, p, 0.5, costs),
        "flagged_share": float((p >= threshold).mean()),
        "recall": _rate(p >= threshold, y),
        "precision": float(y[p >= threshold].mean()) if (p >= threshold).any() else 0.0,
    }


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """True where the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    y: Labels,
    candidate: Probabilities,
    champion: Probabilities,
    *,
    samples: int,
    seed: int,
    customers: npt.NDArray[np.intp] | None = None,
) -> dict[str, Interval]:
    """`roc_auc` and `log_loss` of the candidate minus the champion's, with 95 % intervals; both models on the same draws.

    Customers are drawn: `customers` (n,) numbers each row's customer from 0; None: every row is another customer's.

    Source: Efron and Tibshirani, 1993, "An Introduction to the Bootstrap", percentile interval.
    """
    rng = np.random.default_rng(seed)
    drawn = np.arange(len(y)) if customers is None else customers
    count = int(drawn.max()) + 1
    draws = np.empty((samples, 2))
    loss_gap = losses(y, candidate) - losses(y, champion)
    fast = _RankAuc(y, candidate), _RankAuc(y, champion)
    for index in range(samples):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)[drawn]
        draws[index] = fast[0](weights) - fast[1](weights), weights @ loss_gap / weights.sum()
    low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    auc_gap = roc_auc(y, candidate) - roc_auc(y, champion)
    return {
        "roc_auc": Interval(auc_gap, float(low[0]), float(high[0])),
        "log_loss": Interval(float(loss_gap.mean()), float(low[1]), float(high[1])),
    }


class _RankAuc:
    """ROC-AUC of weighted rows, sorted once: a bootstrap draw is a vector of how often each row was drawn."""

    def __init__(self, y: Labels, p: Probabilities) -> None:
        self._order = np.argsort(p, kind="stable")
        self._y = y[self._order]
        ranked = p[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])

    def __call__(self, weights: npt.NDArray[np.intp]) -> float:
        drawn = weights[self._order]
        churned = np.add.reduceat(np.where(self._y, drawn, 0), self._starts)
        stayed = np.add.reduceat(np.where(self._y, 0, drawn), self._starts)
        below = np.cumsum(stayed) - stayed
        pairs = churned.sum() * stayed.sum()
        return float((churned * (below + stayed / 2)).sum() / pairs) if pairs else float("nan")


def slice_masks(columns: Columns, slices: tuple[Slice, ...]) -> dict[str, npt.NDArray[np.bool_]]:
    """A boolean per row for each group of each slice: "term=One year" → (n,). A null is in no group."""
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for each in slices:
        values = _with_nulls_named(each.column, columns)
        if each.edges:
            band = np.where(np.isnan(values), -1, np.digitize(values, each.edges))
            bounds = ("", *(f"{edge:g}" for edge in each.edges), "")
            groups = {f"{bounds[i]}..{bounds[i + 1]}": band == i for i in range(len(each.edges) + 1)}
        else:
            groups = {shown(each.column, value): values == value for value in _ordered(values)}
        masks |= {f"{each.column}={name}": mask for name, mask in groups.items()}
    return masks


def slice_scores(y: Labels, p: Probabilities, masks: dict[str, npt.NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
    """Rows, churn rate, ROC-AUC and log loss per group."""
    return {
        name: {
            "rows": int(mask.sum()),
            "churn_rate": float(y[mask].mean()),
            "roc_auc": roc_auc(y[mask], p[mask]),
            "log_loss": log_loss(y[mask], p[mask]),
        }
        for name, mask in masks.items()
        if mask.any()
    }


def fairness(
    y: Labels, p: Probabilities, threshold: float, columns: Columns, protected: tuple[str, ...], slices: tuple[Slice, ...] = ()
) -> list[dict[str, Any]]:
    """Per group of each protected column: rows, share flagged, true and false positive rate, and precision at the threshold.

    The groups are those of the column's slice, if it has one: the bands of a number.
    """
    flagged = p >= threshold
    chosen = {each.column: each for each in slices}
    return [
        {
            "group": name,
            "rows": int(group.sum()),
            "flagged_share": float(flagged[group].mean()),
            "true_positive_rate": _rate(flagged, group & y),
            "false_positive_rate": _rate(flagged, group & ~y),
            "precision": _rate(y, group & flagged),
        }
        for name, group in slice_masks(columns, tuple(chosen.get(each, Slice(each)) for each in protected)).items()
        if group.any()
    ]


def _ordered(values: npt.NDArray[Any]) -> list[Any]:
    """Each value once, sorted, texts last, without nulls: NaN has no order."""
    return sorted(set(values[np.asarray(filled(values), dtype=bool)].tolist()), key=lambda value: (isinstance(value, str), value))


def _with_nulls_named(name: str, columns: Columns) -> npt.NDArray[Any]:
    """The column's values (n,); of one whose nulls are a value of their own, that value in their place."""
    values, null_as = np.asarray(columns[name]), BY_NAME[name].null_as
    return np.where(np.asarray(filled(values), dtype=bool), values, null_as) if isinstance(null_as, str) else values


def _rate(hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float:
    return float(hits[among].mean()) if among.any() else float("nan")


def shown(name: str, value: Any) -> str:
    """A column's value as reports print it: a flag is "yes" or "no"."""
    is_flag = isinstance(BY_NAME[name].kind, Flag) and value in (True, False)
    return ("yes" if value else "no") if is_flag else str(value)
