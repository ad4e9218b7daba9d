from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from churn import models
from churn.domain.encoding import Matrix
from churn.domain.metrics import Labels, Probabilities, roc_auc
from churn.errors import ModelError
from churn.models import Model
from churn.params import load_params
from churn.pipeline import selection
from churn.pipeline.selection import (
    Choice,
    by_permutation,
    choose,
    choose_history,
    cross_validate,
    first_as_good,
    fit,
    folds_of,
    importance,
    loss_per_step,
)

COMMITTED = load_params(Path(__file__).parents[2] / "params.yaml").train
BOOSTING = {
    "shapes": ({"max_depth": 1, "max_features": 1.0}, {"max_depth": 3, "max_features": 1.0}),
    "n_estimators": 20,
    "learning_rate": 0.3,
    "min_samples_leaf": 5,
    "subsample": 1.0,
}
HISTOGRAMS = COMMITTED.sections["hist_gradient_boosting"] | {"max_iter": 20}
PARAMS = COMMITTED.model_copy(
    update={"gradient_boosting": BOOSTING, "hist_gradient_boosting": HISTOGRAMS, "cv_repeats": 1, "cv_folds": 3}
)
NAMES = ("member_months", "commitment=Season", "commitment=Two seasons", "is_beginner")


def boosting(*depths: int, trees: int = 20) -> Model:
    values = BOOSTING | {"shapes": [{"max_depth": depth, "max_features": 1.0} for depth in depths], "n_estimators": trees}
    return models.build(PARAMS.model_copy(update={"gradient_boosting": values}), "gradient_boosting")


def linear() -> Model:
    return models.build(PARAMS, "logistic_regression")


def baseline() -> Any:
    return linear().unfitted()


def additive(n: int = 400) -> tuple[Matrix, Labels]:
    """Each input alone says something of the label: stumps are enough, deeper trees learn noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    return X, rng.random(n) < 1 / (1 + np.exp(-X.sum(axis=1)))


def interacting(n: int = 400) -> tuple[Matrix, Labels]:
    """Two inputs say something of the label together only: no stump sees it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    return X, (X[:, 0] > 0) != (X[:, 1] > 0)


def chosen(X: Matrix, y: Labels, *candidates: Model) -> Choice:
    return choose(candidates, X, y, folds_of(y, None, PARAMS.inner_folds, PARAMS.seed))


@pytest.mark.parametrize("candidates", [(boosting(1, 3), linear()), (linear(), boosting(3, 1))])
def test_the_linear_model_is_chosen_where_inputs_add_up(candidates: tuple[Model, ...]) -> None:
    assert chosen(*additive(), *candidates).model.name == "logistic_regression"


@pytest.mark.parametrize("candidates", [(boosting(1, 3), linear()), (linear(), boosting(3, 1))])
def test_deep_trees_are_chosen_where_inputs_interact(candidates: tuple[Model, ...]) -> None:
    choice = chosen(*interacting(), *candidates)

    assert choice.model.name == "gradient_boosting"
    assert choice.hyperparameters["max_depth"] == 3


def test_shallow_trees_are_chosen_where_inputs_add_up() -> None:
    assert chosen(*additive(), boosting(1, 3)).hyperparameters["max_depth"] == 1


def test_the_first_choice_within_one_standard_error_of_the_least_loss_is_taken() -> None:
    least = np.array([0.1, 0.3, 0.2, 0.4])
    close, far = (least + np.array(gaps) for gaps in ([0.2, -0.1, 0.1, -0.1], [0.2, 0.1, 0.2, 0.1]))
    first, second, third = (Choice(linear(), {"c": c}, float(loss.mean()), loss) for c, loss in enumerate((far, close, least)))

    # The mean difference of the second is 0.025, its standard error 0.065; of the first 0.15 and 0.025.
    assert first_as_good([first, second, third]) is second
    assert first_as_good([third, second, first]) is third


def test_fewer_trees_are_chosen_where_there_is_less_to_learn() -> None:
    X, y = additive(1000)
    noise = np.random.default_rng(1).permutation(y)

    few, many = (chosen(X, labels, boosting(3, trees=60)).hyperparameters["n_estimators"] for labels in (noise, y))

    assert few < 5
    assert few < many < 60


def test_the_number_of_trees_is_the_one_with_the_least_held_out_loss() -> None:
    X, y = additive()
    splits = folds_of(y, None, PARAMS.inner_folds, PARAMS.seed)

    choice = choose([boosting(3)], X, y, splits)

    def loss(trees: int) -> float:
        given = np.empty(len(y))
        for train, held_out in splits:
            estimator = boosting(3).unfitted(max_depth=3, max_features=1.0, n_estimators=trees).fit(X[train], y[train])
            given[held_out] = estimator.predict_proba(X[held_out])[:, 1]
        return float(log_loss(y, given))

    losses = {trees: loss(trees) for trees in range(1, 21)}
    assert choice.hyperparameters["n_estimators"] == min(losses, key=lambda trees: losses[trees])
    assert choice.loss == pytest.approx(min(losses.values()), abs=1e-9)


def test_the_log_names_every_candidate_with_its_loss(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="churn")

    choice = fit([boosting(1, 3), linear()], *additive(), PARAMS).choice

    for name in ("gradient_boosting max_depth=1", "gradient_boosting max_depth=3", "logistic_regression"):
        assert name in caplog.messages[0]
    assert f"chosen: {choice}" in caplog.messages[0]


def test_the_only_choice_of_a_model_without_steps_is_taken_without_a_trial() -> None:
    X, y = interacting(n=2)

    assert choose([linear()], X, y, []).hyperparameters == {}


def test_the_model_is_fitted_with_the_choice_and_the_parameters() -> None:
    X, y = interacting()

    fitted = fit([boosting(1, 3), linear()], X, y, PARAMS)

    assert fitted.candidates == 3
    assert fitted.choice.hyperparameters.items() <= fitted.estimator.get_params().items()
    assert fitted.estimator.max_depth == 3
    assert fitted.estimator.learning_rate == 0.3
    assert roc_auc(y, fitted.estimator.predict_proba(X)[:, 1]) > 0.9


def customers_of(n: int, size: int = 1) -> npt.NDArray[np.uint64]:
    """Hashes of customers with `size` rows each."""
    return selection.hash_of(pd.Series([f"C{number // size}" for number in range(n)]))


def test_the_order_of_the_rows_changes_nothing_that_is_chosen() -> None:
    X, y = additive()
    customers, order = customers_of(400, 2), np.random.default_rng(1).permutation(400)

    one, other = (fit([boosting(1, 3)], X[rows], y[rows], PARAMS, customers[rows]) for rows in (np.arange(400), order))

    assert one.choice.hyperparameters == other.choice.hyperparameters
    assert one.choice.loss == pytest.approx(other.choice.loss, abs=1e-9)


def test_a_customer_is_in_the_same_fold_whatever_the_order_of_the_rows() -> None:
    _, y = additive()
    customers, order = customers_of(400), np.random.default_rng(1).permutation(400)

    one, other = (folds_of(y[rows], customers[rows], 5, 7) for rows in (np.arange(400), order))

    for (_, held_out), (_, again) in zip(one, other, strict=True):
        assert set(customers[held_out]) == set(customers[order][again])


def test_folds_are_of_equal_size_and_churn_rate() -> None:
    _, y = additive(1000)

    splits = folds_of(y, customers_of(1000), 5, 7)

    assert sorted(row for _, held_out in splits for row in held_out) == list(range(1000))
    assert {len(held_out) for _, held_out in splits} == {200}
    assert max(abs(y[held_out].sum() - y.sum() / 5) for _, held_out in splits) <= 1


def test_another_seed_gives_other_folds() -> None:
    _, y = additive()

    one, other = (folds_of(y, customers_of(400), 5, seed)[0][1].tolist() for seed in (7, 8))

    assert len(set(one) & set(other)) < 40


@pytest.mark.parametrize("label", [True, False])
def test_labels_of_one_class_are_refused_with_their_count(label: bool) -> None:
    X, _ = additive(30)

    with pytest.raises(ModelError, match=f"{30 if label else 0} of 30 churned; each of 3 folds needs customers who churned"):
        fit([boosting(1, 3)], X, np.full(30, label), PARAMS)


def test_a_fold_in_which_every_row_is_of_one_class_is_refused() -> None:
    y = np.arange(12) < 6

    with pytest.raises(ModelError, match="6 of 12 churned"):
        folds_of(y, customers_of(12, 6), 2, 7)


@pytest.mark.parametrize("name", models.names())
def test_a_class_needs_a_row_for_each_fold_and_no_more(name: str) -> None:
    X, _ = additive(30)
    model, (two, three) = models.build(PARAMS, name), (np.arange(30) < churned for churned in (2, 3))

    with pytest.raises(ModelError, match="2 of 30 churned"):
        fit([model], X, two, PARAMS)
    fit([model], X, three, PARAMS)


def test_loss_has_a_step_per_tree_on_rows_seen_and_unseen() -> None:
    X, y = additive()
    choice = Choice(boosting(3), {"max_depth": 3, "max_features": 1.0, "n_estimators": 20})

    loss = loss_per_step(choice, X, y, folds_of(y, None, 3, 7))

    assert loss.shape == (20, 2)
    assert loss[-1, 0] < loss[0, 0]
    assert loss[-1, 0] < loss[-1, 1]


def test_a_model_without_steps_has_no_loss_per_step() -> None:
    X, y = additive()

    assert fit([linear()], X, y, PARAMS).loss.shape == (0, 2)


def test_cross_validation_is_not_repeated_on_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = additive()
    repeated = PARAMS.model_copy(update={"cv_repeats": 4})
    few, _ = cross_validate({"model": baseline()}, X, y, repeated)
    once, _ = cross_validate({"model": baseline()}, X, y, PARAMS)

    monkeypatch.setattr(selection, "REPEATED_ROWS", 399)
    many, _ = cross_validate({"model": baseline()}, X, y, repeated)

    assert many == once != few


def test_cross_validation_scores_every_estimator_on_the_same_folds() -> None:
    X, y = additive()
    estimator = baseline()

    scores, _ = cross_validate({"one": estimator, "same": estimator}, X, y, PARAMS)

    assert scores["one"] == scores["same"]
    assert set(scores["one"]) == {"roc_auc", "roc_auc_sd", "log_loss", "log_loss_sd"}
    assert 0.7 < scores["one"]["roc_auc"] < 1
    assert scores["one"]["roc_auc_sd"] > 0


def test_out_of_fold_probabilities_are_the_first_estimators_on_rows_that_it_had_not_seen() -> None:
    X, y = interacting()
    deep = boosting(1).unfitted(max_depth=3).fit(X, y)

    scores, out_of_fold = cross_validate({"deep": deep, "baseline": baseline()}, X, y, PARAMS)

    assert out_of_fold.shape == y.shape
    assert roc_auc(y, out_of_fold) == pytest.approx(scores["deep"]["roc_auc"], abs=0.02)
    assert roc_auc(y, out_of_fold) < roc_auc(y, deep.predict_proba(X)[:, 1])


def test_more_repeats_leave_the_out_of_fold_probabilities_of_the_first() -> None:
    X, y = additive()
    estimator = baseline()

    once, twice = (
        cross_validate({"model": estimator}, X, y, PARAMS.model_copy(update={"cv_repeats": repeats}))[1] for repeats in (1, 2)
    )

    np.testing.assert_array_equal(once, twice)


@pytest.mark.parametrize("name", models.names())
def test_importance_is_a_share_per_feature_that_sums_to_1(name: str) -> None:
    X, y = additive()

    shares = importance(fit([models.build(PARAMS, name)], X, y, PARAMS), NAMES, X, y, PARAMS)

    assert list(shares) == ["member_months", "commitment", "is_beginner"]
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0.1 for share in shares.values())
    assert max(shares, key=lambda feature: shares[feature]) == "commitment", "it has two of the four inputs"


def test_permutation_importance_is_the_rise_in_loss_on_rows_that_were_not_learned_from() -> None:
    X, y = interacting()
    X[:, 3] = np.arange(400)  # learned by heart, and worth nothing on other rows
    train, held_out = folds_of(y, None, 3, 7)[0]

    shares = by_permutation(boosting(1).unfitted(max_depth=3), NAMES, X, y, (train, held_out))

    assert shares["member_months"] > 0.3
    assert shares["commitment"] > 0.3
    assert shares["is_beginner"] < 0.05
    assert sum(shares.values()) == pytest.approx(1)


def test_permutation_shuffles_the_columns_of_a_category_together() -> None:
    rng = np.random.default_rng(0)
    X, y = np.zeros((600, 4), dtype=np.float32), rng.random(600) < 0.5
    X[:, 1] = y ^ (rng.random(600) < 0.1)
    X[:, 2] = 1 - X[:, 1]
    columns = folds_of(y, None, 3, 7)[0]

    shares = by_permutation(baseline(), NAMES, X, y, columns)

    assert shares == {"member_months": 0, "commitment": 1, "is_beginner": 0}


def test_importance_is_zero_where_no_feature_matters() -> None:
    X, y = np.zeros((60, 4), dtype=np.float32), np.arange(60) % 2 == 0

    found = [
        by_permutation(boosting(1).unfitted(max_depth=1), NAMES, X, y, folds_of(y, None, 3, 7)[0]),
        importance(fit([boosting(1)], X, y, PARAMS), NAMES, X, y, PARAMS),
    ]

    assert found == [dict.fromkeys(("member_months", "commitment", "is_beginner"), 0)] * 2


def test_rows_of_one_customer_stay_in_one_fold() -> None:
    rng = np.random.default_rng(0)
    customers = np.repeat(np.arange(80, dtype=np.uint64), 5)
    X = rng.normal(size=(80, 4)).astype(np.float32)[customers]
    y = (rng.random(80) < 0.5)[customers]
    estimator = boosting(1).unfitted(max_depth=3)

    scores, _ = cross_validate({"model": estimator}, X, y, PARAMS)
    grouped, _ = cross_validate({"model": estimator}, X, y, PARAMS, customers)

    assert scores["model"]["roc_auc"] > 0.9, "the same customer on both sides is recognised"
    assert grouped["model"]["roc_auc"] < 0.65, "there is nothing to learn"


HISTORIES = PARAMS.model_copy(update={"histories": (1.0, 0.5, 0.25)})


def snapshots(n: int, count: int) -> "pd.Series[pd.Timestamp]":
    """`n` rows in so many equal snapshots, a month apart."""
    months = pd.Series(np.arange(n) * count // n)
    return pd.Series(pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(30 * months, unit="D"))


def turned(n: int = 1600, *, since: float = 0.75) -> tuple[Matrix, Labels]:
    """Rows of which the newest say the opposite of what the others say."""
    X, y = additive(n)
    return X, np.where(np.arange(n) < since * n, y, ~y)


@pytest.mark.parametrize("shares", [(1.0, 0.5, 0.25), (0.25, 1.0)])
def test_one_snapshot_is_one_history(shares: tuple[float, ...]) -> None:
    X, y = turned(400)

    rows = choose_history(boosting(1), X, y, snapshots(400, 1), PARAMS.model_copy(update={"histories": shares}))

    assert rows.tolist() == list(range(400))


def test_all_rows_are_learned_from_if_no_shorter_history_is_asked_for() -> None:
    X, y = turned(400)

    assert len(choose_history(boosting(1), X, y, snapshots(400, 4), PARAMS.model_copy(update={"histories": (1.0,)}))) == 400


@pytest.mark.parametrize(("since", "first"), [(0.75, 1200), (0.5, 800)])
def test_where_leaving_came_to_depend_on_other_things_only_the_rows_since_are_learned_from(since: float, first: int) -> None:
    X, y = turned(since=since)

    rows = choose_history(boosting(1), X, y, snapshots(1600, 4), HISTORIES)

    assert rows.min() >= first


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_changed_what_is_chosen_is_not_worse_than_all(seed: int) -> None:
    X, y = additive(6000)
    unseen, params = slice(1600, None), HISTORIES.model_copy(update={"seed": seed})

    rows = choose_history(boosting(1), X[:1600], y[:1600], snapshots(1600, 4), params)

    chosen, everything = (
        log_loss(y[unseen], boosting(1).unfitted(max_depth=1).fit(X[some], y[some]).predict_proba(X[unseen])[:, 1])
        for some in (rows, np.arange(1600))
    )
    assert chosen <= everything + 0.01


def test_rows_of_one_time_are_in_a_history_together() -> None:
    X, y = turned()
    times = snapshots(1600, 3)

    rows = choose_history(boosting(1), X, y, times, HISTORIES)

    assert {*times[rows]}.isdisjoint(times.drop(index=rows.tolist()))
    assert len(rows) < 1600


def test_a_history_need_not_be_in_the_order_of_time() -> None:
    X, y = turned()
    shuffled = np.random.default_rng(0).permutation(1600)

    rows = choose_history(boosting(1), X[shuffled], y[shuffled], snapshots(1600, 4).iloc[shuffled], HISTORIES)

    assert sorted(shuffled[rows]) == list(range(1200, 1600))
    assert rows.tolist() == sorted(rows)


def test_the_same_rows_choose_the_same_history() -> None:
    X, y = additive(1600)

    first, second = (choose_history(boosting(1), X, y, snapshots(1600, 4), HISTORIES) for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_all_rows_are_learned_from_where_too_few_of_the_newest_left() -> None:
    X, y = turned(400)
    y[300:] = np.arange(100) < PARAMS.inner_folds - 1

    assert len(choose_history(boosting(1), X, y, snapshots(400, 4), HISTORIES)) == 400


class Recorder(Model):
    """A model, and its estimators, that record which customers, the first input, each learned from and then scored."""

    def __init__(self) -> None:
        super().__init__(None, 0)
        self.made: list[Estimator] = []

    def unfitted(self, **_: Any) -> "Estimator":
        self.made.append(Estimator())
        return self.made[-1]


class Estimator:
    def __init__(self) -> None:
        self.learned: set[float] = set()
        self.scored: set[float] = set()

    def fit(self, X: Matrix, _: Labels) -> "Estimator":
        self.learned = {*X[:, 0].tolist()}
        return self

    def predict_proba(self, X: Matrix) -> Probabilities:
        self.scored = {*X[:, 0].tolist()}
        return np.full((len(X), 2), 0.5)


def test_a_customer_who_is_scored_is_not_learned_from_in_an_older_row() -> None:
    model = Recorder()
    customers = np.tile(np.arange(100, dtype=np.uint64), 4)
    X, y = customers[:, None].astype(np.float32), customers % 3 == 0

    choose_history(model, X, y, snapshots(400, 4), HISTORIES, customers)

    assert len(model.made) == 3 * HISTORIES.inner_folds
    assert all(each.learned and each.scored for each in model.made)
    assert all(each.learned.isdisjoint(each.scored) for each in model.made)
    assert all(each.learned | each.scored == {*range(100)} for each in model.made)
