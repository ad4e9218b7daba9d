"""How any model is chosen, fitted and scored: history, hyperparameters, cross-validation, importance. Every `fit` is here."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn.adapters.rows import newest
from churn.domain import explanations
from churn.domain.encoding import Matrix
from churn.domain.explanations import PROOF_ROWS, Explainer, by_feature
from churn.domain.metrics import Labels, Probabilities
from churn.errors import ModelError
from churn.models import Model
from churn.params import Train

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.intp]
"""Row numbers."""
Customers = Rows | None
"""Per row, a number for its customer: rows of one customer stay in one fold. None: every row is another customer's."""
Splits = list[tuple[Rows, Rows]]

MANY_ROWS = 200_000
"""From how many rows on it is worth using several threads."""
SHUFFLED_ROWS = 10_000
"""How many rows permutation importance is measured on, at most."""


@dataclass(frozen=True)
class Fitted:
    """A fitted model and how it came to be.

    `chosen`: what inner cross-validation picked. `loss` (steps, 2): log loss per step of learning on the rows it was fitted on
    and on a held-out fold, empty for a model without steps. `explanation`: what explains its scores; None if it has none.
    """

    estimator: Any
    chosen: dict[str, Any]
    loss: npt.NDArray[np.float64]
    explanation: dict[str, Any] | None


def fit(model: Model, X: Matrix, y: Labels, params: Train, customers: Customers = None) -> Fitted:
    """The model fitted on (n, k) inputs and (n,) labels.

    Raises:
        ModelError: only one class is there, or too few rows of one for the folds; or the explanation is not that of the scores.
    """
    _require_both_classes(y, max(params.inner_folds, params.cv_folds))
    splits = folds_of(y, customers, params.inner_folds, params.seed)
    chosen = choose(model, X, y, splits)
    estimator = _fitted(model.unfitted(**chosen), X, y)
    explanation = model.explanation(estimator)
    if explanation:
        explanations.prove(explanation, X, estimator.predict_proba)
    return Fitted(estimator, chosen, loss_per_step(model, chosen, X, y, splits), explanation)


def choose_history(
    model: Model, X: Matrix, y: Labels, times: "pd.Series[pd.Timestamp]", params: Train, customers: Customers = None
) -> Rows:
    """The numbers of the rows to learn from: the share of the newest, of `params.histories`, with the least log loss on them.

    Where leaving has come to depend on other things, old rows mislead; where it has not, they help. (n,) `times` are the rows'.
    The loss is that on held-out customers of the shortest history. Rows of one time stay together: one snapshot is one history.
    """
    histories = {share: newest(times, max(1, round(share * len(y)))) for share in params.histories}
    histories = {share: rows for share, rows in histories.items() if share == max(histories) or len(rows) < len(y)}
    compared = min(histories.values(), key=len)
    if len(histories) == 1 or min(y[compared].sum(), (~y[compared]).sum()) < params.inner_folds:
        return histories[max(histories)]
    owners = np.arange(len(y)) if customers is None else customers
    splits = folds_of(y[compared], owners[compared], params.inner_folds, params.seed)

    def loss(history: Rows, held_out: Rows) -> float:
        """The log loss on `held_out` of a model that learned from the history without these rows' customers."""
        from sklearn.metrics import log_loss

        rows = history[~np.isin(owners[history], owners[held_out])]
        estimator = _fitted(model.unfitted(**model.choices()[0]), X[rows], y[rows])
        return float(log_loss(y[held_out], predict(estimator, X[held_out]), labels=[False, True]))

    losses = {
        share: float(np.mean([loss(rows, compared[held_out]) for _, held_out in splits])) for share, rows in histories.items()
    }
    log.info("history: %s", ", ".join(f"newest {share:.0%} → log loss {loss:.4f}" for share, loss in losses.items()))
    return histories[min(losses, key=lambda share: losses[share])]


def choose(model: Model, X: Matrix, y: Labels, splits: Splits) -> dict[str, Any]:
    """The model's simplest choice whose log loss on held-out rows is within one standard error of the least.

    The best one differs from table to table, so it is not fixed; where two are equally good, chance must not choose the more
    complex. The error is that of the mean difference on the same rows, of folds of the inner cross-validation.
    Source: the one-standard-error rule, Breiman et al. 1984, Classification and Regression Trees, 3.4.3.
    """
    choices = model.choices()
    if len(choices) == 1:
        return choices[0]
    losses = [_held_out_losses(model.unfitted(**choice), X, y, splits) for choice in choices]
    best = min(range(len(choices)), key=lambda index: losses[index].mean())
    chosen = next(index for index in range(len(choices)) if _is_as_good(losses[index], losses[best]))
    log.info(
        "%s; chosen: %s, %s",
        ", ".join(f"{_shown(choice)} → log loss {loss.mean():.4f}" for choice, loss in zip(choices, losses, strict=True)),
        _shown(choices[chosen]),
        "the least" if chosen == best else f"the simplest within one standard error of {_shown(choices[best])}",
    )
    return choices[chosen]


def _shown(choice: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in choice.items())


def _is_as_good(losses: npt.NDArray[np.float64], best: npt.NDArray[np.float64]) -> bool:
    worse = losses - best
    return bool(worse.mean() <= worse.std() / np.sqrt(len(worse)))


def loss_per_step(model: Model, chosen: dict[str, Any], X: Matrix, y: Labels, splits: Splits) -> npt.NDArray[np.float64]:
    """Log loss after each step of learning, (steps, 2): on the rows of all inner folds but the first, and on the first."""
    from sklearn.metrics import log_loss

    train, held_out = splits[0]
    estimator = _fitted(model.unfitted(**chosen), X[train], y[train])
    steps = zip(model.stages(estimator, X[train]), model.stages(estimator, X[held_out]), strict=True)
    return np.array([(log_loss(y[train], fitted), log_loss(y[held_out], unseen)) for fitted, unseen in steps]).reshape(-1, 2)


def importance(
    fitted: Fitted, names: Sequence[str], X: Matrix, y: Labels, params: Train, customers: Customers = None
) -> dict[str, float]:
    """Each feature's share of what moves the scores: by its contributions, or by permutation for a model without an explanation.

    `names` are the k encoded columns; those of a category count together. The shares sum to 1; all are 0 where none matters.
    """
    if fitted.explanation:
        return by_contributions(fitted.explanation, names, X)
    split = folds_of(y, customers, params.inner_folds, params.seed)[0]
    return by_permutation(fitted.estimator, names, X, y, split)


def by_contributions(explanation: dict[str, Any], names: Sequence[str], X: Matrix) -> dict[str, float]:
    """Each feature's share of the mean size of the contributions to the log-odds of rows of `X` (n, k)."""
    contributions = Explainer(explanation).contributions(X[:: len(X) // PROOF_ROWS + 1])
    return _shares(names, np.abs(by_feature(contributions, names)).mean(axis=0))


def by_permutation(estimator: Any, names: Sequence[str], X: Matrix, y: Labels, split: tuple[Rows, Rows]) -> dict[str, float]:
    """Each feature's share of the rise in held-out log loss where its values are shuffled among the rows.

    Source: permutation importance, Breiman 2001, doi:10.1023/A:1010933404324.
    """
    from sklearn.base import clone

    train, held_out = split
    fitted = _fitted(clone(estimator), X[train], y[train])
    held_out = held_out[:: len(held_out) // SHUFFLED_ROWS + 1]
    rng, before = np.random.default_rng(0), _losses(predict(fitted, X[held_out]), y[held_out]).mean()
    rises = []
    for feature in _features(names):
        columns = [column for column, name in enumerate(names) if name.partition("=")[0] == feature]
        shuffled = X[held_out]
        shuffled[:, columns] = shuffled[rng.permutation(len(shuffled))][:, columns]
        rises.append(_losses(predict(fitted, shuffled), y[held_out]).mean() - before)
    return _shares(names, np.maximum(rises, 0))


def _features(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition("=")[0] for name in names))


def _shares(names: Sequence[str], sizes: npt.NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(_features(names), (sizes / (sizes.sum() or 1)).tolist(), strict=True))


def cross_validate(
    estimators: dict[str, Any], X: Matrix, y: Labels, params: Train, customers: Customers = None
) -> tuple[dict[str, Any], Probabilities]:
    """Scores of each estimator on the same folds, and the first one's out-of-fold probabilities (n,), of the first repeat.

    The scores: name → {"roc_auc", "roc_auc_sd", "log_loss", "log_loss_sd"} over `cv_folds` × `cv_repeats` folds.
    """
    from sklearn.base import clone
    from sklearn.metrics import log_loss, roc_auc_score

    repeats = [folds_of(y, customers, params.cv_folds, params.seed + repeat) for repeat in range(params.cv_repeats)]
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in estimators}
    out_of_fold = np.zeros(len(y))
    for index, (train, held_out) in enumerate(chain.from_iterable(repeats)):
        for name, estimator in estimators.items():
            probability = predict(_fitted(clone(estimator), X[train], y[train]), X[held_out])
            scores[name].append((roc_auc_score(y[held_out], probability), log_loss(y[held_out], probability)))
            if index < params.cv_folds and name == next(iter(estimators)):
                out_of_fold[held_out] = probability
    return {name: _summary(np.array(values)) for name, values in scores.items()}, out_of_fold


def _fitted(estimator: Any, X: Matrix, y: Labels) -> Any:
    """The estimator, fitted in float64: in float32 a regression does not converge. Trees take the same values either way."""
    with _threads(len(y)):
        return estimator.fit(X.astype(np.float64), y)


def predict(estimator: Any, X: Matrix) -> Probabilities:
    """The fitted estimator's churn probabilities (n,) of (n, k) inputs."""
    with _threads(len(X)):
        probability: Probabilities = estimator.predict_proba(X.astype(np.float64))[:, 1]
    return probability


def _threads(rows: int) -> Any:
    """One thread unless there are many rows: threads that wait for each other on a busy machine take twenty times as long."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if rows < MANY_ROWS else None, user_api="openmp")


def _summary(scores: npt.NDArray[np.float64]) -> dict[str, float]:
    (auc, loss), (auc_sd, loss_sd) = scores.mean(axis=0), scores.std(axis=0)
    return {"roc_auc": float(auc), "roc_auc_sd": float(auc_sd), "log_loss": float(loss), "log_loss_sd": float(loss_sd)}


def _held_out_losses(estimator: Any, X: Matrix, y: Labels, splits: Splits) -> npt.NDArray[np.float64]:
    """(n,) the log loss of each row by a model that did not learn from it."""
    from sklearn.base import clone

    given = np.empty(len(y))
    for train, held_out in splits:
        given[held_out] = predict(_fitted(clone(estimator), X[train], y[train]), X[held_out])
    return _losses(given, y)


def _losses(probability: Probabilities, y: Labels) -> npt.NDArray[np.float64]:
    """The log loss of each row (n,)."""
    losses: npt.NDArray[np.float64] = -np.log(np.maximum(np.where(y, probability, 1 - probability), np.finfo(np.float64).tiny))
    return losses


def folds_of(y: Labels, customers: Customers, folds: int, seed: int) -> Splits:
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
