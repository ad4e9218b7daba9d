"""Logistic regression on scaled inputs: also the baseline, which every other model must at least equal."""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from churn import models
from churn.domain import explanations
from churn.params import Section


class Params(Section):
    """`train.logistic_regression`: `c` is the inverse of the regularisation's strength."""

    c: Annotated[float, Field(gt=0)]


class Model(models.Model):
    """A scaler, then a logistic regression."""

    params: Params

    def unfitted(self, **chosen: Any) -> Any:  # noqa: D102
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        # Newton's method converges to the last bits; the default stops where the third digit still depends on the machine.
        return make_pipeline(StandardScaler(), LogisticRegression(C=self.params.c, solver="newton-cholesky", tol=1e-10))

    def explanation(self, estimator: Any) -> dict[str, Any]:  # noqa: D102
        scaler, regression = estimator
        slope, scaled = regression.coef_[0], scaler.transform(scaler.mean_[np.newaxis])
        slope = slope if scaler.scale_ is None else slope / scaler.scale_
        return explanations.describe_linear(slope, scaler.mean_, regression.decision_function(scaled)[0])
