"""Columns that give the label away: one alone separates churned customers from the others."""

from typing import Any

import numpy as np
import pandas as pd

MAX_AUC = 0.95
"""From this ROC-AUC on, one column alone is taken for a leak."""
EXTREME_ROWS = 50
"""How many rows at one end of a column are looked at, with all that have the same value as the last …"""
EXTREME_SHARE = 0.96
"""… and which share of them must have churned to take it for a leak."""
MAX_CHURN_RATE = 0.8
"""Where more customers churn, the ends of a harmless column reach `EXTREME_SHARE` by chance."""
FEW = 20
"""A text with fewer rows than this counts as average: its own churn rate would be chance."""
MANY_TEXTS = 50
"""With more texts, the rate of each is mostly chance."""


def leak(values: "pd.Series[Any]", label: "pd.Series[bool]") -> str:
    """Why the column is taken for a leak, "" if it is not; `label` (n,) is True for churned customers."""
    churned = label.to_numpy(dtype=bool)
    rate = float(churned.mean()) if len(churned) else 0.0
    if not 0 < rate < 1:
        return ""
    missing = values.isna().to_numpy()
    scores = _scores(values, churned)
    if scores is not None and (area := separation(scores, churned)) >= MAX_AUC:
        return f"the column alone has ROC-AUC {area:.3f}"
    if missing.any() and not missing.all() and (area := separation(missing.astype(float), churned)) >= MAX_AUC:
        return f"whether it is blank has ROC-AUC {area:.3f}"
    if scores is None or rate > MAX_CHURN_RATE:
        return ""
    for ends in (scores, -scores):
        if (share := _share_at_the_end(ends[~missing], churned[~missing])) >= EXTREME_SHARE:
            return f"{share:.0%} of its {EXTREME_ROWS} most extreme rows churned"
    if missing.sum() >= EXTREME_ROWS and churned[missing].mean() >= EXTREME_SHARE:
        return f"{churned[missing].mean():.0%} of the rows where it is blank churned"
    return ""


def separation(scores: Any, churned: Any) -> float:
    """ROC-AUC of the scores (n,), or of their negatives if that is larger."""
    ranks = pd.Series(scores).rank().to_numpy()
    positives, negatives = int(churned.sum()), int((~churned).sum())
    area = (ranks[churned].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return float(max(area, 1 - area))


def _scores(values: "pd.Series[Any]", churned: Any) -> Any:
    """Numbers as they are, a null below all; texts by their churn rate; None where neither is possible."""
    if pd.api.types.is_datetime64_any_dtype(values):
        values = values.astype("int64").where(values.notna())
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        numbers = pd.to_numeric(values).astype("float64")
        return numbers.fillna(numbers.min() - 1 if numbers.notna().any() else 0).to_numpy()
    texts = values.astype("object").where(values.notna(), "").astype(str)
    if texts.nunique() > MANY_TEXTS:
        return None
    grouped = pd.Series(churned, index=texts.index).groupby(texts)
    rates = grouped.mean().where(grouped.size() >= FEW, float(np.mean(churned)))
    return texts.map(rates).to_numpy(dtype=float)


def _share_at_the_end(scores: Any, churned: Any) -> float:
    """The share of churned customers among the rows with the highest scores, those that are equal to the last one included."""
    if len(scores) < EXTREME_ROWS:
        return 0.0
    cut = np.partition(scores, -EXTREME_ROWS)[-EXTREME_ROWS]
    return float(churned[scores >= cut].mean())
