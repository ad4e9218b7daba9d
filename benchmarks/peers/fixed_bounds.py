"""The gate of release 0.1.0: fixed bounds, which fit the shipped table. What `make bench-gate` compares with."""

import numpy as np
import numpy.typing as npt

from churn.domain import metrics
from churn.domain.metrics import Labels, Probabilities

MIN_AUC, MAX_AUC = 0.82, 0.88
MAX_RELATIVE_LOG_LOSS = 0.78
MAX_ECE = 0.05
SLOPE = (0.8, 1.2)
BASELINE_MARGIN = 0.005
CHAMPION_MARGIN = 0.005
SLICE_MARGIN, SLICE_MIN_ROWS = 0.03, 100


def refuses(y: Labels, p: Probabilities, baseline: Probabilities) -> bool:
    """True if the candidate's scores miss a bound."""
    auc = metrics.roc_auc(y, p)
    slope = metrics.calibration_slope(y, p)
    return not (
        MIN_AUC <= auc <= MAX_AUC
        and metrics.relative_log_loss(y, p) <= MAX_RELATIVE_LOG_LOSS
        and metrics.expected_calibration_error(y, p) <= MAX_ECE
        and SLOPE[0] <= slope <= SLOPE[1]
        and auc - metrics.roc_auc(y, baseline) >= -BASELINE_MARGIN
    )


def refuses_beside(y: Labels, p: Probabilities, champion: Probabilities) -> bool:
    """True if the candidate is worse than the champion by more than a margin."""
    worse = metrics.roc_auc(y, champion) - metrics.roc_auc(y, p)
    return worse > CHAMPION_MARGIN or metrics.log_loss(y, p) - metrics.log_loss(y, champion) > CHAMPION_MARGIN


def refuses_slices(y: Labels, p: Probabilities, champion: Probabilities, masks: list[npt.NDArray[np.bool_]]) -> bool:
    """True if the candidate's ROC-AUC is too far below the champion's in a group of enough rows."""
    gaps = [
        metrics.roc_auc(y[mask], champion[mask]) - metrics.roc_auc(y[mask], p[mask])
        for mask in masks
        if mask.sum() >= SLICE_MIN_ROWS
    ]
    return any(gap > SLICE_MARGIN for gap in gaps)
