"""scikit-learn's HistGradientBoostingClassifier: boosting on binned inputs, faster from some ten thousand rows on.

It takes the encoded inputs as numbers: its own categories (`categorical_features`) convert to ONNX wrongly, without an error.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from churn import models
from churn.adapters import onnx
from churn.domain import explanations
from churn.domain.encoding import Matrix
from churn.domain.explanations import Tree
from churn.domain.metrics import Probabilities
from churn.params import Count, Section


class Shape(Section):
    """What a tree may look like: its depth or number of leaves, and the share of the inputs that each split is chosen from."""

    max_depth: Count | None = None
    max_leaf_nodes: Annotated[int, Field(ge=2)] | None = None
    max_features: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _is_bounded(self) -> "Shape":
        if self.max_depth is None and self.max_leaf_nodes is None:
            raise ValueError("expected max_depth or max_leaf_nodes, got neither")
        return self


class Params(Section):
    """`train.hist_gradient_boosting`: one of `shapes` is chosen, and the number of trees up to `max_iter`."""

    shapes: tuple[Shape, ...] = Field(min_length=1)
    max_iter: Count
    learning_rate: Annotated[float, Field(gt=0)]
    min_samples_leaf: Count
    l2_regularization: Annotated[float, Field(ge=0)]


class Model(models.Model):
    """Histogram gradient boosting with a shape and a number of trees that cross-validation chooses."""

    params: Params
    steps = "max_iter"

    def choices(self) -> tuple[dict[str, Any], ...]:  # noqa: D102
        return tuple(shape.model_dump(exclude_none=True) for shape in self.params.shapes)

    def unfitted(self, **chosen: Any) -> Any:  # noqa: D102
        from sklearn.ensemble import HistGradientBoostingClassifier

        kwargs = {"max_leaf_nodes": None} | self.params.model_dump(exclude={"shapes"}) | chosen
        # Early stopping would hold back rows that depend on their order.
        return HistGradientBoostingClassifier(**kwargs, categorical_features=None, early_stopping=False, random_state=self.seed)

    def stages(self, estimator: Any, X: Matrix) -> Iterable[Probabilities]:  # noqa: D102
        staged: Iterable[Probabilities] = estimator.staged_predict_proba(X)
        return staged

    def explanation(self, estimator: Any) -> dict[str, Any]:  # noqa: D102
        trees = [
            Tree(
                feature=nodes["feature_idx"],
                threshold=nodes["num_threshold"],
                left=nodes["left"],
                right=nodes["right"],
                value=nodes["value"],
                cover=nodes["count"],
            )
            for nodes in _nodes(estimator)
        ]
        return explanations.describe_trees(trees, float(estimator._baseline_prediction[0, 0]), estimator.n_features_in_)

    def export(self, estimator: Any, X: Matrix, *, metadata: dict[str, str]) -> bytes:
        """ONNX has float32 thresholds, and rounding one up sends a value on it the other way: they are rounded down."""
        rounded = deepcopy(estimator)
        for nodes in _nodes(rounded):
            nodes["num_threshold"] = _rounded_down(nodes["num_threshold"])
        return onnx.export(estimator, X, metadata=metadata, converted=rounded)


def _nodes(estimator: Any) -> list[Any]:
    """The nodes of each tree, a structured array."""
    return [predictor.nodes for (predictor,) in estimator._predictors]


def _rounded_down(thresholds: Any) -> Any:
    """The largest float32 that is not above each float64: it compares alike with every float32."""
    nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)
