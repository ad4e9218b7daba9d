"""Estimators by name; every `fit` of the project is here."""

import logging
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn.adapters.rows import newest
from churn.domain.encoding import Matrix
from churn.errors import ModelError
from churn.params import Train

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.bool_]
Probabilities = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
"""Row numbers."""
Customers = Rows | None
"""Per row, a number for its customer: rows of one customer stay in one fold. None: every row is another customer's."""
Splits = list[tuple[Rows, Rows]]


@dataclass(frozen=True)
class Fitted:
    """A fitted model and how it came to be.

    `chosen`: what inner cross-validation picked; `loss` (steps, 2): log loss per boosting step on the rows it was fitted on and
    on a held-out fold, empty for a model without steps.
    """

    estimator: Any
    chosen: dict[str, int]
    loss: npt.NDArray[np.float64]


def fit(X: Matrix, y: Labels, params: Train, customers: Customers = None) -> Fitted:
    """The model that `params.model` names, fitted on (n, k) inputs and (n,) labels.

    Raises:
        ModelError: only one class is there, or too few rows of one for the folds.
    """
    _require_both_classes(y, max(params.inner_folds, params.cv_folds))
    match params.model:
        case "gradient_boosting":
            depth = choose_depth(X, y, params, customers)
            estimator = gradient_boosting(params, depth).fit(X, y)
            return Fitted(estimator, {"max_depth": depth}, loss_per_step(X, y, params, depth, customers))
        case "logistic_regression":
            return Fitted(fit_baseline(X, y, params), {}, np.empty((0, 2)))


def fit_baseline(X: Matrix, y: Labels, params: Train) -> Any:
    """Logistic regression on the same inputs: what a model must at least equal."""
    return logistic_regression(params).fit(_double(X), y)


def gradient_boosting(params: Train, depth: int) -> Any:
    """An unfitted GradientBoostingClassifier of that depth."""
    from sklearn.ensemble import GradientBoostingClassifier

    kwargs = params.gradient_boosting.model_dump(exclude={"depths"})
    return GradientBoostingClassifier(**kwargs, max_depth=depth, random_state=params.seed)


def logistic_regression(params: Train) -> Any:
    """An unfitted pipeline: scale, then logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Newton's method converges to the last bits; the default stops where the third digit still depends on the machine.
    regression = LogisticRegression(C=params.logistic_regression.c, solver="newton-cholesky", tol=1e-10)
    return make_pipeline(StandardScaler(), regression)


def choose_history(X: Matrix, y: Labels, times: "pd.Series[pd.Timestamp]", params: Train, customers: Customers = None) -> Rows:
    """The numbers of the rows to learn from: the share of the newest, of `params.histories`, with the least log loss on them.

    Where leaving has come to depend on other things, old rows mislead; where it has not, they help. (n,) `times` are the rows'.
    The loss is that on held-out customers of the shortest history. Rows of one time stay together: one snapshot is one history.
    """
    histories = {share: newest(times, max(1, round(share * len(y)))) for share in params.histories}
    histories = {share: rows for share, rows in histories.items() if share == max(histories) or len(rows) < len(y)}
    judged = min(histories.values(), key=len)
    if len(histories) == 1 or min(y[judged].sum(), (~y[judged]).sum()) < params.inner_folds:
        return histories[max(histories)]
    owners = np.arange(len(y)) if customers is None else customers
    splits = _splits(y[judged], owners[judged], params.inner_folds, params.seed)
    losses = {
        share: float(np.mean([_loss_on(judged[held_out], rows, X, y, owners, params) for _, held_out in splits]))
        for share, rows in histories.items()
    }
    log.info("history: %s", ", ".join(f"newest {share:.0%} → log loss {loss:.4f}" for share, loss in losses.items()))
    return histories[min(losses, key=lambda share: losses[share])]


def _loss_on(
    held_out: Rows,
    history: Rows,
    X: Matrix,
    y: Labels,
    owners: Rows,
    params: Train,
) -> float:
    """The log loss on `held_out` of a model that learned from the history without these rows' customers."""
    from sklearn.metrics import log_loss

    rows = history[~np.isin(owners[history], owners[held_out])]
    estimator = gradient_boosting(params, params.gradient_boosting.depths[0])
    return float(log_loss(y[held_out], estimator.fit(X[rows], y[rows]).predict_proba(X[held_out])[:, 1], labels=[False, True]))


def choose_depth(X: Matrix, y: Labels, params: Train, customers: Customers = None) -> int:
    """The shallowest depth whose log loss on held-out rows is within one standard error of the least.

    The best depth differs from table to table, so it is not fixed; where two are equally good, chance must not choose the deeper.
    The error is that of the mean difference on the same rows, of folds of the inner cross-validation.
    Source: the one-standard-error rule, Breiman et al. 1984, Classification and Regression Trees, 3.4.3.
    """
    depths = sorted(params.gradient_boosting.depths)
    if len(depths) == 1:
        return depths[0]
    splits = _splits(y, customers, params.inner_folds, params.seed)
    losses = {depth: _held_out_losses(gradient_boosting(params, depth), X, y, splits) for depth in depths}
    best = min(depths, key=lambda depth: losses[depth].mean())
    chosen = next(depth for depth in depths if _is_as_good(losses[depth], losses[best]))
    log.info(
        "depth: %s; chosen: %d, %s",
        ", ".join(f"{depth} → log loss {loss.mean():.4f}" for depth, loss in losses.items()),
        chosen,
        "the least" if chosen == best else f"the shallowest within one standard error of {best}",
    )
    return chosen


def _is_as_good(losses: npt.NDArray[np.float64], best: npt.NDArray[np.float64]) -> bool:
    worse = losses - best
    return bool(worse.mean() <= worse.std() / np.sqrt(len(worse)))


def loss_per_step(X: Matrix, y: Labels, params: Train, depth: int, customers: Customers = None) -> npt.NDArray[np.float64]:
    """Log loss after each boosting step, (steps, 2): on the rows of all inner folds but the first, and on the first."""
    from sklearn.metrics import log_loss

    train, held_out = _splits(y, customers, params.inner_folds, params.seed)[0]
    estimator = gradient_boosting(params, depth).fit(X[train], y[train])
    steps = zip(estimator.staged_predict_proba(X[train]), estimator.staged_predict_proba(X[held_out]), strict=True)
    return np.array([(log_loss(y[train], fitted), log_loss(y[held_out], unseen)) for fitted, unseen in steps])


def cross_validate(
    estimators: dict[str, Any], X: Matrix, y: Labels, params: Train, customers: Customers = None
) -> tuple[dict[str, Any], Probabilities]:
    """Scores of each estimator on the same folds, and the first one's out-of-fold probabilities (n,), of the first repeat.

    The scores: name → {"roc_auc", "roc_auc_sd", "log_loss", "log_loss_sd"} over `cv_folds` × `cv_repeats` folds.
    """
    from sklearn.base import clone
    from sklearn.metrics import log_loss, roc_auc_score

    repeats = [_splits(y, customers, params.cv_folds, params.seed + repeat) for repeat in range(params.cv_repeats)]
    inputs = _double(X)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in estimators}
    out_of_fold = np.zeros(len(y))
    for index, (train, held_out) in enumerate(chain.from_iterable(repeats)):
        for name, estimator in estimators.items():
            probability = clone(estimator).fit(inputs[train], y[train]).predict_proba(inputs[held_out])[:, 1]
            scores[name].append((roc_auc_score(y[held_out], probability), log_loss(y[held_out], probability)))
            if index < params.cv_folds and name == next(iter(estimators)):
                out_of_fold[held_out] = probability
    return {name: _summary(np.array(values)) for name, values in scores.items()}, out_of_fold


def _double(X: Matrix) -> npt.NDArray[np.float64]:
    """The inputs as float64: in float32 the regression does not converge. Trees take the same float32 values either way."""
    return X.astype(np.float64)


def _summary(scores: npt.NDArray[np.float64]) -> dict[str, float]:
    (auc, loss), (auc_sd, loss_sd) = scores.mean(axis=0), scores.std(axis=0)
    return {"roc_auc": float(auc), "roc_auc_sd": float(auc_sd), "log_loss": float(loss), "log_loss_sd": float(loss_sd)}


def _held_out_losses(estimator: Any, X: Matrix, y: Labels, splits: Splits) -> npt.NDArray[np.float64]:
    """(n,) the log loss of each row by a model that did not learn from it."""
    from sklearn.model_selection import cross_val_predict

    predicted = cross_val_predict(estimator, X, y, cv=splits, method="predict_proba")
    given = predicted[np.arange(len(y)), y.astype(int)]
    losses: npt.NDArray[np.float64] = -np.log(np.maximum(given, np.finfo(np.float64).tiny))
    return losses


def _splits(y: Labels, customers: Customers, folds: int, seed: int) -> Splits:
    """(fitting, held-out) row numbers per fold: stratified, or by customer where one has several rows."""
    from sklearn.model_selection import GroupKFold, StratifiedKFold

    if customers is None or len(np.unique(customers)) == len(y):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y))
    return list(GroupKFold(folds, shuffle=True, random_state=seed).split(y, y, customers))


def _require_both_classes(y: Labels, folds: int) -> None:
    churned = int(y.sum())
    if min(churned, len(y) - churned) < folds:
        raise ModelError(
            f"training rows: {churned} of {len(y)} churned; each class needs at least {folds} rows (one per fold): "
            "bring more rows, or lower the folds in params.yaml"
        )


def importance(estimator: Any, names: tuple[str, ...]) -> dict[str, float]:
    """Each feature's share of what the model gains from all: tree gain, or size of the scaled coefficient; sums to 1.

    `names` are the encoded columns; the values of a category are added up.
    """
    shares: dict[str, float] = {}
    gains = getattr(estimator, "feature_importances_", None)
    gains = np.abs(estimator[-1].coef_[0]) if gains is None else gains
    for name, gain in zip(names, gains / gains.sum(), strict=True):
        feature = name.partition("=")[0]
        shares[feature] = shares.get(feature, 0.0) + float(gain)
    return shares
