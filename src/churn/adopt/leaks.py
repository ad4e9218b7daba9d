"""Columns that give the label away: one alone separates churned customers from the others."""

from typing import Any

import numpy as np
import pandas as pd

from churn.domain.evidence import END_ROWS, rate_of_largest, separation
from churn.domain.gate import LEAK_MAX_CHURN_RATE, LEAK_RATE

MAX_AUC = 0.95
"""From this ROC-AUC on, one column alone is taken for a leak."""
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
    if scores is not None and (area := separation(churned, scores)) >= MAX_AUC:
        return f"the column alone has ROC-AUC {area:.3f}"
    if missing.any() and not missing.all() and (area := separation(churned, missing.astype(float))) >= MAX_AUC:
        return f"whether it is blank has ROC-AUC {area:.3f}"
    if scores is None or rate > LEAK_MAX_CHURN_RATE:
        return ""
    for ends in (scores, -scores):
        if (~missing).sum() >= END_ROWS and (share := rate_of_largest(churned[~missing], ends[~missing])) >= LEAK_RATE:
            return f"{share:.0%} of its {END_ROWS} most extreme rows churned"
    if missing.sum() >= END_ROWS and churned[missing].mean() >= LEAK_RATE:
        return f"{churned[missing].mean():.0%} of the rows where it is blank churned"
    return ""


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
