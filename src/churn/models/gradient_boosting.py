"""scikit-learn's GradientBoostingClassifier."""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from churn import models
from churn.domain import explanations
from churn.domain.encoding import Matrix
from churn.domain.explanations import Tree
from churn.domain.metrics import Probabilities
from churn.params import Count, Section


class Shape(Section):
    """What a tree may look like: its depth, and the share of the inputs that each split is chosen from."""

    max_depth: Count
    max_features: Annotated[float, Field(gt=0, le=1)]


class Params(Section):
    """`train.gradient_boosting`: one of `shapes` is chosen, and the number of trees up to `n_estimators`."""

    shapes: tuple[Shape, ...] = Field(min_length=1)
    n_estimators: Count
    learning_rate: Annotated[float, Field(gt=0)]
    subsample: Annotated[float, Field(gt=0, le=1)]
    min_samples_leaf: Count


class Model(models.Model):
    """Gradient boosting with a shape and a number of trees that cross-validation chooses."""

    params: Params
    steps = "n_estimators"

    def choices(self) -> tuple[dict[str, Any], ...]:  # noqa: D102
        return tuple(shape.model_dump() for shape in self.params.shapes)

    def unfitted(self, **chosen: Any) -> Any:  # noqa: D102
        from sklearn.ensemble import GradientBoostingClassifier

        return GradientBoostingClassifier(**self.params.model_dump(exclude={"shapes"}) | chosen, random_state=self.seed)

    def stages(self, estimator: Any, X: Matrix) -> Iterable[Probabilities]:  # noqa: D102
        staged: Iterable[Probabilities] = estimator.staged_predict_proba(X)
        return staged

    def explanation(self, estimator: Any) -> dict[str, Any]:  # noqa: D102
        return explain(estimator)


def explain(estimator: Any) -> dict[str, Any]:
    """The explanation of a fitted GradientBoostingClassifier."""
    grown, rate = [each.tree_ for each in estimator.estimators_[:, 0]], estimator.learning_rate
    # Any row shows what the boosting started from: what the trees do not say.
    row = np.zeros((1, estimator.n_features_in_), dtype=np.float32)
    start = estimator.decision_function(row)[0] - sum(rate * tree.predict(row)[0, 0] for tree in grown)
    trees = [
        Tree(
            feature=tree.feature,
            threshold=tree.threshold,
            left=tree.children_left,
            right=tree.children_right,
            value=rate * tree.value[:, 0, 0],
            # The same covers as shap's: with subsample < 1 the rows that the tree was grown on.
            cover=tree.weighted_n_node_samples,
        )
        for tree in grown
    ]
    return explanations.describe_trees(trees, start, estimator.n_features_in_)
