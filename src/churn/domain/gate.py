"""The promotion gate: what a candidate must show to become production."""

from dataclasses import dataclass
from math import isnan

from churn.domain.metrics import Difference
from churn.params import Gate


@dataclass(frozen=True)
class Check:
    """One gate: what was measured, the bound, and whether it held."""

    name: str
    value: float
    bound: str
    passed: bool

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: {self.value:.4f} ({self.bound})"
        # Rounded, a value just beyond its bound would read as if it held.
        is_close = round(self.value, 4) == float(self.bound.split()[-1])
        return f"{self.name}: {self.value:{'.9g' if is_close else '.4f'}}, must be {self.bound}"


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
class Evidence:
    """What the gate judges: scores on the same test rows. The champion's parts are None for the first version ever.

    `slices`: group → (rows, candidate's ROC-AUC, champion's). `newer_days`: by how much the newest row of the candidate's
    workspace is newer than that of the champion's; None where that is not known. `source`: None where no test row came through
    the API.
    """

    candidate: dict[str, float]
    baseline: dict[str, float]
    differences: dict[str, Difference] | None = None
    slices: dict[str, tuple[int, float, float]] | None = None
    newer_days: float | None = None
    source: SourceRows | None = None


def evaluate(evidence: Evidence, bounds: Gate) -> list[Check]:
    """Every check that a candidate must pass to become production.

    Source of the defaults: the standard error of ROC-AUC on about 1,400 rows is 0.011, so a margin below 0.005 would decide by
    chance; the best models of the default data reach 0.85, so more than 0.88 means leakage. A log loss of 0.45 is poor at the
    default data's churn rate of 0.265 (0.78 of that of the rate alone); where more customers leave, every model's is higher.
    """
    found = evidence.candidate
    checks = [
        _at_least("roc_auc", found["roc_auc"], bounds.min_auc),
        _at_most("roc_auc (leakage)", found["roc_auc"], bounds.max_auc),
        _at_most("log_loss / the churn rate's", found["relative_log_loss"], bounds.max_relative_log_loss),
        _at_most("ece", found["ece"], bounds.max_ece),
        _at_least("calibration_slope", found["calibration_slope"], bounds.min_calibration_slope),
        _at_most("calibration_slope", found["calibration_slope"], bounds.max_calibration_slope),
        _at_least("roc_auc − baseline's", found["roc_auc"] - evidence.baseline["roc_auc"], -bounds.baseline_auc_margin),
    ]
    if evidence.differences is not None:
        gaps = evidence.differences
        checks.append(_at_least("roc_auc − champion's", gaps["roc_auc"].value, -bounds.champion_auc_margin))
        checks.append(_at_most("log_loss − champion's", gaps["log_loss"].value, bounds.champion_log_loss_margin))
    if evidence.newer_days is not None:
        # A version of a workspace that lost its rows would otherwise be evaluated on the rest, and win.
        checks.append(_at_least("newest row − champion's, days", evidence.newer_days, 0))
    return checks + _slice_checks(evidence.slices or {}, bounds) + _source_checks(evidence.source, bounds)


def _source_checks(source: SourceRows | None, bounds: Gate) -> list[Check]:
    """The checks on rows whose labels no client of the API chose; none where there are too few of either class.

    Source of the defaults: on simulated months of the default data, candidates after a price rise or a surge had ROC-AUC 0.85 to
    0.86 on these rows, the champion 0.85; after a change of what leaving depends on 0.72, and right so; one that had learned
    8,000 inverted labels 0.11.
    """
    if source is None or min(source.churned, source.others) < bounds.source_min_of_class:
        return []
    checks = [_at_least("roc_auc on source rows", source.roc_auc, bounds.source_min_auc)]
    if source.champion_roc_auc is not None:
        gap = source.roc_auc - source.champion_roc_auc
        checks.append(_at_least("roc_auc − champion's on source rows", gap, -bounds.source_auc_margin))
    return checks


def _slice_checks(slices: dict[str, tuple[int, float, float]], bounds: Gate) -> list[Check]:
    return [
        _at_least(f"roc_auc − champion's where {name}", candidate - champion, -bounds.slice_auc_margin)
        for name, (rows, candidate, champion) in slices.items()
        if rows >= bounds.slice_min_rows and not isnan(candidate - champion)
    ]


def _at_least(name: str, value: float, bound: float) -> Check:
    return Check(name, value, f"≥ {bound:g}", value >= bound)


def _at_most(name: str, value: float, bound: float) -> Check:
    return Check(name, value, f"≤ {bound:g}", value <= bound)
