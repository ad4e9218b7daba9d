"""How good the version's predictions turned out to be, with intervals; and how good they promise to be, without labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from churn.domain import metrics
from churn.domain.metrics import Labels, Probabilities
from churn.params import Costs
from monitoring.policy import Verdict

DRAWS = 500
SCORES = ("roc_auc", "log_loss", "ece", "brier", "profit_per_customer")
CLEAN = 0.8
MAX_AUC_LOSS = 0.02
"""Two standard errors of the ROC-AUC on the test rows: a smaller loss cannot be distinguished from chance."""


@dataclass(frozen=True)
class Score:
    """A score on matured labels with the bounds of its 95 % interval, and the version's own on its test rows."""

    value: float
    low: float
    high: float
    test: float | None


@dataclass(frozen=True)
class Performance:
    """Scores by name of `rows` matured predictions, and the 95 % interval of the ROC-AUC's change since the test."""

    rows: int
    positives: int
    scores: dict[str, Score]
    auc_change: float
    auc_change_low: float
    auc_change_high: float

    def verdict(self) -> Verdict:
        """Bad only if the interval excludes a smaller loss than `MAX_AUC_LOSS`."""
        if self.auc_change_high < -MAX_AUC_LOSS:
            return Verdict.BAD
        if self.auc_change_high < 0:
            return Verdict.WARN
        return Verdict.CLEAN if self.auc_change > -CLEAN * MAX_AUC_LOSS else Verdict.BETWEEN

    @property
    def reason(self) -> str:
        """The ROC-AUC, what it was on the test rows, and the interval of the change, in one line."""
        auc = self.scores["roc_auc"]
        interval = f"{self.auc_change:+.3f} [{self.auc_change_low:+.3f}, {self.auc_change_high:+.3f}]"
        return f"ROC-AUC {auc.value:.3f} on {self.rows} final labels, {auc.test:.3f} on the test rows: {interval}"


def measured(
    y: Labels, p: Probabilities, *, threshold: float, costs: Costs, test: dict[str, float], seed: int = 0
) -> Performance:
    """Scores of (n,) final labels and their probabilities, both classes among them, beside the version's `test` figures.

    The intervals are the 2.5 % and 97.5 % quantiles of `DRAWS` bootstrap draws. That of the change of ROC-AUC adds the test
    figure's own standard error, if `test` says on how many `rows` and `positives` it was measured.
    """
    random = np.random.default_rng(seed)
    draws = np.array([_scores(y[rows], p[rows], threshold, costs) for rows in random.integers(len(y), size=(DRAWS, len(y)))])
    low, high = np.nanquantile(draws, (0.025, 0.975), axis=0)
    values = _scores(y, p, threshold, costs)
    scores = {
        name: Score(value, float(below), float(above), test.get(name))
        for name, value, below, above in zip(SCORES, values, low, high, strict=True)
    }
    auc = scores["roc_auc"]
    before = test["roc_auc"]
    own = (
        hanley_mcneil(before, test["positives"], test["rows"] - test["positives"])
        if {"rows", "positives"} <= test.keys()
        else 0.0
    )
    changes = draws[:, 0] - before + own * random.standard_normal(DRAWS)
    change_low, change_high = np.nanquantile(changes, (0.025, 0.975))
    return Performance(len(y), int(y.sum()), scores, auc.value - before, float(change_low), float(change_high))


def hanley_mcneil(auc: float, positives: float, negatives: float) -> float:
    """The standard error of a ROC-AUC.

    Source: Hanley and McNeil, 1982, "The meaning and use of the area under a receiver operating characteristic (ROC) curve".
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float(np.sqrt(spread / (positives * negatives)))


def promised_auc(p: Probabilities) -> float:
    """The ROC-AUC that (n,) probabilities promise, if calibrated: a row counts as p churned and 1 - p other customers.

    Source: confidence-based performance estimation; Białek et al., 2024, "Estimating Model Performance Under Covariate Shift
    Without Labels". It cannot see a change of how leaving depends on the features: it may warn, and never more.
    """
    ranked = np.sort(p)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    churned, others = np.add.reduceat(ranked, starts), np.add.reduceat(1 - ranked, starts)
    below = np.cumsum(others) - others
    return float((churned * (below + others / 2)).sum() / (churned.sum() * others.sum()))


def _scores(y: Labels, p: Probabilities, threshold: float, costs: Costs) -> tuple[float, ...]:
    if not 0 < y.sum() < len(y):
        return (float("nan"),) * len(SCORES)
    return (
        _auc(y, p),
        metrics.log_loss(y, p),
        metrics.expected_calibration_error(y, p),
        float(((p - y) ** 2).mean()),
        metrics.profit(y, p, threshold, costs),
    )


def _auc(y: Labels, p: Probabilities) -> float:
    """`metrics.roc_auc` by ranks, without scikit-learn's checks: five hundred draws take a tenth of the time."""
    ranks: npt.NDArray[np.float64] = _ranks(p)
    positives = y.sum()
    return float((ranks[y].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def _ranks(p: Probabilities) -> npt.NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(p))
