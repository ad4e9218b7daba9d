"""The score of one point, and what becomes of the point that a search found."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from churn import models, paths
from churn.adapters import round_trip
from churn.adapters.study import Study
from churn.errors import ConfigError
from churn.params import Range, Train, load_params
from churn.pipeline import selection, train, tune
from churn.pipeline.tune import Table, conclude, gain, parse_changes, points_of, scores, with_point

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
AUTO = PARAMS.train
BOOSTING = AUTO.model_copy(update={"model": "gradient_boosting"})


def section(params: Train, model: str = "gradient_boosting") -> dict[str, Any]:
    return params.sections[model]


def table(n: int = 300, size: int = 1) -> Table:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    y = rng.random(n) < 1 / (1 + np.exp(-X.sum(axis=1)))
    return Table(X, y, np.arange(n, dtype=np.uint64) // size)


class TestChanges:
    @pytest.mark.parametrize(
        ("params", "change"), [(BOOSTING, "learning_rate=0.05"), (AUTO, "gradient_boosting.learning_rate=0.05")]
    )
    def test_a_key_of_a_model_changes_its_section(self, params: Train, change: str) -> None:
        changed = parse_changes(params, [change])

        assert section(changed) == section(params) | {"learning_rate": 0.05}
        assert changed.model == params.model

    def test_a_key_of_train_changes_train(self) -> None:
        assert parse_changes(AUTO, ["cv_folds=3"]) == AUTO.model_copy(update={"cv_folds": 3})

    def test_a_model_and_its_key_may_be_given_in_any_order(self) -> None:
        changed = parse_changes(AUTO, ["c=2.0", "model=logistic_regression"])

        assert changed.model == "logistic_regression"
        assert section(changed, "logistic_regression") == {"c": 2.0}

    def test_keys_of_a_shape_make_one_shape(self) -> None:
        changed = parse_changes(BOOSTING, ["max_depth=4", "max_features=0.2"])

        assert section(changed)["shapes"] == [{"max_depth": 4, "max_features": 0.2}]

    def test_a_key_that_only_one_shape_has_starts_from_that_shape(self) -> None:
        changed = with_point(AUTO, "hist_gradient_boosting", {"max_leaf_nodes": 9, "max_features": 0.4})

        assert section(changed, "hist_gradient_boosting")["shapes"] == [{"max_leaf_nodes": 9, "max_features": 0.4}]

    def test_no_changes_are_the_parameters_themselves(self) -> None:
        assert parse_changes(AUTO, []) == AUTO

    @pytest.mark.parametrize(
        ("params", "change", "message"),
        [
            (AUTO, "learning_rate=0.05", "expected a key of train or MODEL.KEY, as train.model is auto, got 'learning_rate'"),
            (AUTO, "learning_rate", "expected KEY=VALUE, got 'learning_rate'"),
            (AUTO, "=1", "expected KEY=VALUE, got '=1'"),
            (AUTO, "cv_folds=1", "params.yaml: train.cv_folds: 1: "),
            (AUTO, "forest.trees=1", "params.yaml: train.forest: unknown key; "),
            (AUTO, "model=forest", "params.yaml: train.model: expected one of auto, gradient_boosting, "),
            (AUTO, "cv_folds=[", "cv_folds=[: not YAML: "),
            (
                BOOSTING,
                "learning_rat=1",
                "params.yaml: train.gradient_boosting.learning_rat: unknown key; did you mean learning_rate",
            ),
            (BOOSTING, "learning_rate=-1", "params.yaml: train.gradient_boosting.learning_rate: -1: "),
        ],
    )
    def test_a_wrong_change_is_refused_in_one_line(self, params: Train, change: str, message: str) -> None:
        with pytest.raises(ConfigError) as refused:
            parse_changes(params, [change])

        assert str(refused.value).startswith(message)
        assert "\n" not in str(refused.value)


def test_a_trial_has_the_scores_of_training_with_the_same_parameters() -> None:
    rows, params = table(), parse_changes(BOOSTING, ["cv_repeats=1", "max_depth=2", "n_estimators=10"])

    found = scores(params, rows)

    trained = train.fit(rows.X, rows.y, PARAMS.model_copy(update={"train": params}), rows.customers)
    assert found == {f"cv_{name}": trained.scores["cv"][name] for name in ("log_loss", "roc_auc")}


def test_the_current_points_are_the_shapes_with_the_rest_of_the_section() -> None:
    ranges = {"max_depth": Range(low=1, high=3), "learning_rate": Range(low=0.05, high=0.2)}

    assert points_of(AUTO, "gradient_boosting", ranges) == [{"max_depth": depth, "learning_rate": 0.1} for depth in (2, 2, 3)]


def test_a_model_without_shapes_has_one_current_point() -> None:
    assert points_of(AUTO, "logistic_regression", {"c": Range(low=0.1, high=10.0)}) == [{"c": 1.0}]


@pytest.mark.parametrize("limits", [{"low": 2, "high": 1}, {"low": 1, "high": 1}, {"low": 0, "high": 1, "log": True}])
def test_a_range_without_values_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected low < high"):
        Range(**limits)


def test_a_gains_error_is_that_of_the_mean_of_paired_differences() -> None:
    before, after = np.random.default_rng(0).random((2, 400))

    fell, error = gain(before, after, None)

    assert fell == pytest.approx((before - after).mean())
    assert error == pytest.approx((before - after).std() / 20)


def test_rows_of_one_customer_are_one_observation_of_a_gain() -> None:
    before, after = np.random.default_rng(0).random((2, 400))
    customers = np.repeat(np.arange(400, dtype=np.uint64), 4)

    _, once = gain(before, after, None)
    _, repeated = gain(before.repeat(4), after.repeat(4), customers)

    assert repeated == pytest.approx(once)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the committed parameters."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses_of(before: float, after: float) -> Any:
    """Stands for `nested_losses`: the first recipe has one mean loss, the second another, with the same spread of rows."""
    means = iter((before, after))
    spread = iter((np.linspace(-0.1, 0.1, 300), np.linspace(0.1, -0.1, 300)))
    return lambda *_: next(means) + next(spread)


POINT = {"max_depth": 4, "max_features": 0.25, "learning_rate": 0.05, "min_samples_leaf": 20}


def test_a_better_point_is_written_and_every_comment_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "nested_losses", losses_of(0.45, 0.40))

    message = conclude(AUTO, "gradient_boosting", table(), POINT)

    written, before = paths.PARAMS.read_text(), (ROOT / "params.yaml").read_text()
    shape = {"max_depth": 4, "max_features": 0.25}
    assert load_params().train == with_point(AUTO, "gradient_boosting", POINT)
    assert section(load_params().train)["shapes"] == [shape]
    assert [line.partition("#")[2] for line in written.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in before.splitlines() if "#" in line
    ]
    assert "written to params.yaml" in message


@pytest.mark.parametrize("after", [0.4499, 0.45, 0.46])
def test_a_point_that_is_not_better_by_one_standard_error_is_not_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    monkeypatch.setattr(selection, "nested_losses", losses_of(0.45, after))

    message = conclude(AUTO, "gradient_boosting", table(), POINT)

    assert paths.PARAMS.read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert "not better by one standard error" in message


def test_a_point_is_compared_by_its_own_model_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[list[str]] = []

    def nested_losses(given: Sequence[models.Model], *_: Any) -> Any:
        compared.append([model.name for model in given])
        return np.linspace(-0.1, 0.1, 300)

    monkeypatch.setattr(selection, "nested_losses", nested_losses)
    conclude(AUTO, "gradient_boosting", table(), POINT)

    assert compared == [["gradient_boosting"], ["gradient_boosting"]]


def test_the_current_parameters_are_not_compared_with_themselves(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "nested_losses", lambda *_: pytest.fail("compared"))

    assert "current parameters" in conclude(AUTO, "logistic_regression", table(), {"c": 1.0})


def test_replacing_a_value_by_itself_changes_no_byte(project: Path) -> None:
    round_trip.replace(paths.PARAMS, ("train", "gradient_boosting"), {"learning_rate": section(AUTO)["learning_rate"]})

    assert paths.PARAMS.read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_the_scored_point_is_found_by_rows_that_did_not_choose_it() -> None:
    rows = table(300)
    params = parse_changes(BOOSTING, ["max_depth=3", "n_estimators=10", "cv_folds=3"])
    candidates = models.candidates(params, 300)

    nested = selection.nested_losses(candidates, rows.X, rows.y, params, rows.customers)
    fitted = selection.fit(candidates, rows.X, rows.y, params, rows.customers).estimator
    seen = -np.log(np.where(rows.y, *fitted.predict_proba(rows.X).T[::-1]))

    assert nested.shape == (300,)
    assert nested.mean() > seen.mean()


@pytest.mark.parametrize("missing", ["optuna"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ConfigError) as refused:
        Study("study.journal", "name", {}, 7)

    assert str(refused.value) == f"expected the package {missing}, which is not installed: uv sync --group tune"


@pytest.mark.parametrize("model", ["forest", "../cli"])
def test_a_model_without_ranges_is_refused_with_those_that_have_some(model: str) -> None:
    with pytest.raises(ConfigError) as refused:
        tune.run(PARAMS, None, model=model)  # type: ignore[arg-type]

    assert str(refused.value).startswith(
        "params.yaml: tune.ranges: expected a model of gradient_boosting, hist_gradient_boosting, "
    )
    assert f"got {model!r}" in str(refused.value)


def test_the_committed_ranges_are_of_keys_that_the_models_take() -> None:
    for model, ranges in PARAMS.tune.ranges.items():
        for limit in ("low", "high"):
            point = {name: getattr(each, limit) for name, each in ranges.items()}
            changed = with_point(AUTO, model, point)
            built = models.build(changed, model)
            given = {
                name.rpartition("__")[2].lower(): value
                for name, value in built.unfitted(**built.choices()[0]).get_params().items()
            }
            assert {name: given[name] for name in point} == point


def test_a_search_is_another_one_where_rows_parameters_or_ranges_differ() -> None:
    rows, other = table(), table(299)
    narrow = PARAMS.model_copy(
        update={"tune": PARAMS.tune.model_copy(update={"ranges": {"gradient_boosting": {"max_depth": Range(low=1, high=2)}}})}
    )
    more = PARAMS.model_copy(update={"tune": PARAMS.tune.model_copy(update={"trials": 99})})
    folds = PARAMS.model_copy(update={"train": AUTO.model_copy(update={"inner_folds": 4})})

    names = {tune.study_name(params, "gradient_boosting", rows) for params in (PARAMS, narrow, folds)}

    assert len(names | {tune.study_name(PARAMS, "gradient_boosting", other)}) == 4
    assert tune.study_name(more, "gradient_boosting", rows) in names, "more trials continue the same search"
