"""How a model is chosen, fitted and scored: history, hyperparameters, cross-validation, importance. Every `fit` is here."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from churn.models import BASELINE, Model
from churn.params import Train

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.intp]
"""Row numbers."""
Customers = npt.NDArray[np.uint64] | None
"""Per row, a hash of its customer: rows of one customer stay in one fold. None: every row is another customer's."""
Splits = list[tuple[Rows, Rows]]
Losses = npt.NDArray[np.float64]

MANY_ROWS = 200_000
"""From how many rows on it is worth using several threads."""
REPEATED_ROWS = 20_000
"""With more rows, cross-validation is not repeated: at 64,000 rows the folds' ROC-AUC has a standard deviation of .003."""
SAMPLED_ROWS = 50_000
"""Of how many held-out rows each log loss is kept, to compare two choices: of 300 steps they are 60 MB."""
SHUFFLED_ROWS = 10_000
"""How many rows permutation importance is measured on, at most."""


@dataclass(frozen=True)
class Choice:
    """A model with hyperparameters. `loss` is their log loss on held-out rows; NaN where there was nothing to choose.

    `sampled` (m,) has the log losses of at most `SAMPLED_ROWS` of these rows, the same ones for every choice.
    """

    model: Model
    hyperparameters: dict[str, Any]
    loss: float = math.nan
    sampled: Losses = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)

    def unfitted(self) -> Any:
        """The estimator."""
        return self.model.unfitted(**self.hyperparameters)

    def __str__(self) -> str:
        return " ".join((self.model.name, *(f"{name}={value}" for name, value in self.hyperparameters.items())))


@dataclass(frozen=True)
class Fitted:
    """A fitted model and how it came to be.

    `choice`: what inner cross-validation picked, of `candidates` many. `loss` (steps, 2): log loss per step of learning on the
    rows it was fitted on and on a held-out fold, empty for a model without steps. `explanation`: what explains its scores; None
    if it has none.
    """

    estimator: Any
    choice: Choice
    candidates: int
    loss: Losses
    explanation: dict[str, Any] | None


def hash_of(customers: "pd.Series[str]") -> npt.NDArray[np.uint64]:
    """(n,) a hash of each customer's id."""
    hashes: npt.NDArray[np.uint64] = pd.util.hash_array(customers.to_numpy(dtype=object))
    return hashes


def fit(models: Sequence[Model], X: Matrix, y: Labels, params: Train, customers: Customers = None) -> Fitted:
    """The best of the models, fitted on (n, k) inputs and (n,) labels.

    Raises:
        ModelError: a fold has one class only; or the explanation is not that of the scores.
    """
    splits = folds_of(y, customers, params.inner_folds, params.seed)
    choices = compare(models, X, y, splits)
    choice = first_as_good(choices)
    if len(choices) > 1 or choice.model.steps:
        each = ", ".join(f"{choice} → {choice.loss:.4f}" for choice in choices)
        least = min(choices, key=lambda choice: choice.loss)
        why = "the least" if choice is least else f"within one standard error of {least}"
        log.info("%d-fold log loss: %s; chosen: %s, %s", len(splits), each, choice, why)
    estimator = fit_estimator(choice.unfitted(), X, y)
    explanation = choice.model.explanation(estimator)
    if explanation:
        explanations.prove(explanation, X, estimator.predict_proba)
    return Fitted(estimator, choice, len(choices), loss_per_step(choice, X, y, splits), explanation)


def choose_history(
    model: Model, X: Matrix, y: Labels, times: "pd.Series[pd.Timestamp]", params: Train, customers: Customers = None
) -> Rows:
    """The numbers of the rows to learn from: the share of the newest, of `params.histories`, with the least log loss on them.

    Where leaving has come to depend on other things, old rows mislead; where it has not, they help. (n,) `times` are the rows'.
    The loss is that of the model's first choice on held-out customers of the shortest history. Rows of one time stay together:
    one snapshot is one history.
    """
    histories = {share: newest(times, max(1, round(share * len(y)))) for share in params.histories}
    histories = {share: rows for share, rows in histories.items() if share == max(histories) or len(rows) < len(y)}
    compared = min(histories.values(), key=len)
    if len(histories) == 1:
        return histories[max(histories)]
    owners = np.arange(len(y), dtype=np.uint64) if customers is None else customers
    try:
        splits = folds_of(y[compared], owners[compared], params.inner_folds, params.seed)
    except ModelError:
        return histories[max(histories)]

    def loss(history: Rows) -> float:
        """The log loss on the compared rows of models that learned from the history without these rows' customers."""
        held_out = [compared[rows] for _, rows in splits]
        folds = [(history[~np.isin(owners[history], owners[rows])], rows) for rows in held_out]
        return float(last(held_out_losses(model, model.choices()[0], X, y, folds)).min())

    losses = {share: loss(rows) for share, rows in histories.items()}
    log.info("history: %s", ", ".join(f"newest {share:.0%} → log loss {loss:.4f}" for share, loss in losses.items()))
    return histories[min(losses, key=lambda share: losses[share])]


def choose(models: Sequence[Model], X: Matrix, y: Labels, splits: Splits) -> Choice:
    """The model, and its hyperparameters with the number of steps, that `first_as_good` takes."""
    return first_as_good(compare(models, X, y, splits))


def first_as_good(choices: Sequence[Choice]) -> Choice:
    """The first choice whose log loss on held-out rows is within one standard error of the least, and not above the baseline's.

    The best differs from table to table, so nothing is fixed; where two are equally good, chance must not take the later one,
    which is the more complex. The error is that of the mean difference on the same rows.
    Source: the one-standard-error rule, Breiman et al. 1984, Classification and Regression Trees, 3.4.3.
    The gate refuses a version that is worse than the baseline, `models.BASELINE`: one that is no better here is not taken.
    """
    least = min(choices, key=lambda choice: choice.loss)
    most = min((choice.loss for choice in choices if choice.model.name == BASELINE), default=math.inf)
    good = (choice for choice in choices if not choice.loss > most)  # one that is alone has no loss: NaN
    return next(choice for choice in good if choice is least or _is_as_good(choice.sampled, least.sampled))


def _is_as_good(losses: Losses, least: Losses) -> bool:
    worse = losses - least
    return bool(worse.mean() <= worse.std() / np.sqrt(len(worse)))


def compare(models: Sequence[Model], X: Matrix, y: Labels, splits: Splits) -> list[Choice]:
    """Every choice of the models, with its best number of steps and its loss; one that is alone and has no steps as it is."""
    choices = [Choice(model, hyperparameters) for model in models for hyperparameters in model.choices()]
    if len(choices) == 1 and not choices[0].model.steps:
        return choices
    return [_with_steps(choice, X, y, splits) for choice in choices]


def _with_steps(choice: Choice, X: Matrix, y: Labels, splits: Splits) -> Choice:
    """The choice with its best number of steps, and its loss."""
    every = len(y) // SAMPLED_ROWS + 1
    folds = [_fold(choice, X, y, split, every) for split in splits]
    losses = np.sum([sums for sums, _ in folds], axis=0) / sum(len(held_out) for _, held_out in splits)
    best = int(losses.argmin())
    steps = {choice.model.steps: best + 1} if choice.model.steps else {}
    sampled = np.concatenate([kept[best] for _, kept in folds])
    return Choice(choice.model, choice.hyperparameters | steps, float(losses[best]), sampled)


def _fold(choice: Choice, X: Matrix, y: Labels, split: tuple[Rows, Rows], every: int = 0) -> tuple[Losses, list[Losses]]:
    """After each step of learning: the sum of the log losses of the held-out rows, and those of every `every`-th row."""
    train, held_out = split
    estimator = fit_estimator(choice.unfitted(), X[train], y[train])
    sums: list[float] = []
    kept: list[Losses] = []
    for probability in _stages(choice.model, estimator, X[held_out]):
        losses = _losses(probability, y[held_out])
        sums.append(losses.sum())
        if every:
            kept.append(losses[::every].astype(np.float32))
    return np.array(sums), kept


def held_out_losses(model: Model, hyperparameters: dict[str, Any], X: Matrix, y: Labels, splits: Splits) -> Iterator[Losses]:
    """After each fold: the log loss (steps,) on the rows held out so far, after each step of learning.

    A model without steps has one.
    """
    total, rows = np.zeros(1), 0
    for train, held_out in splits:
        total = total + _fold(Choice(model, hyperparameters), X, y, (train, held_out))[0]
        rows += len(held_out)
        yield total / rows


def last(losses: Iterable[Losses]) -> Losses:
    """The last of several."""
    *_, found = losses
    return found


def _stages(model: Model, estimator: Any, X: Matrix) -> Iterator[Probabilities]:
    """The churn probabilities (n,) after each step of learning; of a model without steps, its only ones."""
    if not model.steps:
        yield predict(estimator, X)
        return
    with _threads(len(X)):
        for probability in model.stages(estimator, X.astype(np.float64)):
            yield probability[:, 1]


def loss_per_step(choice: Choice, X: Matrix, y: Labels, splits: Splits) -> Losses:
    """Log loss after each step of learning, (steps, 2): on the rows of all inner folds but the first, and on the first."""
    if not choice.model.steps:
        return np.empty((0, 2))
    train, held_out = splits[0]
    estimator = fit_estimator(choice.unfitted(), X[train], y[train])
    sides = [[_losses(p, y[rows]).mean() for p in _stages(choice.model, estimator, X[rows])] for rows in (train, held_out)]
    return np.array(sides).T


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
    fitted = fit_estimator(clone(estimator), X[train], y[train])
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

    The scores: name → {"roc_auc", "roc_auc_sd", "log_loss", "log_loss_sd"} over `cv_folds` × `cv_repeats` folds; above
    `REPEATED_ROWS` rows, `cv_folds`.

    Raises:
        ModelError: a fold has one class only.
    """
    from sklearn.base import clone
    from sklearn.metrics import log_loss, roc_auc_score

    count = params.cv_repeats if len(y) <= REPEATED_ROWS else 1
    repeats = [folds_of(y, customers, params.cv_folds, params.seed + repeat) for repeat in range(count)]
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in estimators}
    out_of_fold = np.zeros(len(y))
    for index, (train, held_out) in enumerate(chain.from_iterable(repeats)):
        for name, estimator in estimators.items():
            probability = predict(fit_estimator(clone(estimator), X[train], y[train]), X[held_out])
            scores[name].append((roc_auc_score(y[held_out], probability), log_loss(y[held_out], probability)))
            if index < params.cv_folds and name == next(iter(estimators)):
                out_of_fold[held_out] = probability
    return {name: _summary(np.array(values)) for name, values in scores.items()}, out_of_fold


def nested_losses(models: Sequence[Model], X: Matrix, y: Labels, params: Train, customers: Customers = None) -> Losses:
    """(n,) the log loss of each row by a model that was chosen and fitted without the rows of its fold.

    The folds are not those of `cross_validate`.
    """
    losses, owners = np.empty(len(y)), np.arange(len(y), dtype=np.uint64) if customers is None else customers
    for train, held_out in folds_of(y, owners, params.cv_folds, params.seed + params.cv_repeats):
        choice = choose(models, X[train], y[train], folds_of(y[train], owners[train], params.inner_folds, params.seed))
        estimator = fit_estimator(choice.unfitted(), X[train], y[train])
        losses[held_out] = _losses(predict(estimator, X[held_out]), y[held_out])
    return losses


def fit_estimator(estimator: Any, X: Matrix, y: Labels) -> Any:
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

    return threadpool_limits(1 if rows < MANY_ROWS else None)


def _summary(scores: npt.NDArray[np.float64]) -> dict[str, float]:
    (auc, loss), (auc_sd, loss_sd) = scores.mean(axis=0), scores.std(axis=0)
    return {"roc_auc": float(auc), "roc_auc_sd": float(auc_sd), "log_loss": float(loss), "log_loss_sd": float(loss_sd)}


def _losses(probability: Probabilities, y: Labels) -> npt.NDArray[np.float64]:
    """The log loss of each row (n,)."""
    losses: npt.NDArray[np.float64] = -np.log(np.maximum(np.where(y, probability, 1 - probability), np.finfo(np.float64).tiny))
    return losses


def folds_of(y: Labels, customers: Customers, folds: int, seed: int) -> Splits:
    """(fitting, held-out) row numbers per fold: all rows of a customer in one, customers who churned dealt out evenly.

    Within each class, customers are dealt in the order of a hash, so that the order of the rows changes nothing.

    Raises:
        ModelError: there are too few of one class for the folds.
    """
    owners = np.arange(len(y), dtype=np.uint64) if customers is None else customers
    known, owner = np.unique(owners, return_inverse=True)
    churned = np.bincount(owner, weights=y) > 0
    order = np.lexsort((pd.util.hash_array(known + np.uint64(seed % 2**64)), churned))
    fold = np.empty(len(known), dtype=np.intp)
    fold[order] = np.arange(len(known)) % folds
    splits = [(np.flatnonzero(fold[owner] != each), np.flatnonzero(fold[owner] == each)) for each in range(folds)]
    if any(len(np.unique(y[rows])) < 2 for split in splits for rows in split):
        raise ModelError(
            f"training rows: {int(y.sum())} of {len(y)} churned; each of {folds} folds needs customers who churned and "
            "customers who did not: bring more rows, or lower the folds in params.yaml"
        )
    return splits
