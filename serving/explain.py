"""Why a customer got its score, in words."""

import math
from typing import Any

from churn.contract import Date, Flag, Kind
from churn.domain.encoding import Coded
from churn.domain.explanations import by_feature
from churn.features import FEATURES
from serving.predictor import Scored
from serving.problems import NotFound
from serving.rows import sliced

_FEATURES = {each.name: each for each in FEATURES}


def explanations(scored: Scored) -> dict[str, Any]:
    """A `serving.schemas.ExplainResponse`.

    Raises:
        NotFound: the version has no explanation.
    """
    explainer = scored.model.explainer
    if not explainer:
        raise NotFound(f"version {scored.model.version} has no explanation: its kind of model has no exact one")
    features = sliced(scored.features, scored.rows)
    names = list(dict.fromkeys(each.partition("=")[0] for each in scored.model.inputs))
    given = by_feature(explainer.contributions(scored.model.encode(features)), scored.model.inputs)
    values = {name: _plain(features[name], _FEATURES[name].kind) for name in names}
    return {
        "model_version": scored.model.version,
        "base_log_odds": explainer.base,
        "explanations": [
            {
                **prediction,
                "log_odds": explainer.base + float(given[row].sum()),
                "reasons": _reasons(
                    {name: values[name][row] for name in names}, dict(zip(names, given[row].tolist(), strict=True))
                ),
            }
            for row, prediction in enumerate(scored.predictions())
        ],
    }


def _reasons(values: dict[str, Any], given: dict[str, float]) -> list[dict[str, Any]]:
    ordered = sorted(given, key=lambda name: -abs(given[name]))
    return [
        {"feature": name, "value": values[name], "contribution": given[name], "text": in_words(name, values[name], given[name])}
        for name in ordered
    ]


def in_words(name: str, value: Any, contribution: float) -> str:
    """What a feature does to the odds of churning: `tenure_months is 2: odds × 1.8 (Whole months since …)`."""
    match value:
        case None:
            shown = "not given"
        case bool():
            shown = "yes" if value else "no"
        case float() | int() if isinstance(_FEATURES[name].kind, Date):
            shown = f"{value:g} days ago"
        case float() | int():
            shown = f"{value:g}"
        case _:
            shown = value
    return f"{name} is {shown}: odds × {math.exp(contribution):.2f} ({_FEATURES[name].description})"


def _plain(values: Any, kind: Kind) -> list[Any]:
    """Values as JSON has them: texts of codes, nulls for NaN."""
    if isinstance(values, Coded):
        return [values.values[code] if code >= 0 else None for code in values.codes.tolist()]
    given = [None if each != each else each for each in values.tolist()]  # noqa: PLR0124 - only NaN differs from itself
    return [None if each is None else bool(each) for each in given] if isinstance(kind, Flag) else given
