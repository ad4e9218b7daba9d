"""Models by name: what a model's file and its section of params.yaml must have, and what each model gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from churn import models
from churn.adapters import onnx
from churn.domain.encoding import Matrix, derive, encode
from churn.domain.metrics import Labels, roc_auc
from churn.errors import ConfigError
from churn.models import Model
from churn.models.hist_gradient_boosting import Params as HistogramParams
from churn.params import Train, load_params
from factory import rows

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").train
UNSEEN = encode(derive(rows(300, seed=1)))


@pytest.fixture(scope="module")
def inputs() -> Matrix:
    return encode(derive(rows(600)))


@pytest.fixture(scope="module")
def labels(inputs: Matrix) -> Labels:
    return np.random.default_rng(0).random(len(inputs)) < np.where(inputs[:, 4] < np.median(inputs[:, 4]), 0.8, 0.1)


def fitted(model: Model, X: Matrix, y: Labels) -> Any:
    return model.unfitted(**model.choices()[-1]).fit(X.astype(np.float64), y)


def changed(**values: Any) -> Train:
    return PARAMS.model_copy(update=values)


def refusal(train: Train) -> str:
    with pytest.raises(ConfigError) as refused:
        models.check(train)
    return str(refused.value)


def test_every_model_file_is_a_known_model() -> None:
    assert models.names() == ["gradient_boosting", "hist_gradient_boosting", "logistic_regression"]


def test_the_committed_sections_are_accepted() -> None:
    models.check(PARAMS)

    assert set(PARAMS.sections) == set(models.names())


@pytest.mark.parametrize("name", ["random_forest", "", "../cli", "churn.cli", "__init__"])
def test_an_unknown_model_is_refused_with_the_known_names(name: str) -> None:
    message = refusal(changed(model=name))

    assert message.startswith("params.yaml: train.model: expected one of gradient_boosting, hist_gradient_boosting, logistic_reg")
    assert f"got {name!r}" in message
    assert "\n" not in message


def test_a_model_without_a_section_is_refused() -> None:
    sections = {name: values for name, values in PARAMS.model_dump().items() if name != "hist_gradient_boosting"}

    message = refusal(Train.model_validate(sections | {"model": "hist_gradient_boosting"}))

    assert message == "params.yaml: train.hist_gradient_boosting: missing key; add it"


def test_an_unknown_section_is_refused_with_a_suggestion() -> None:
    assert refusal(changed(gradient_bosting={})) == (
        "params.yaml: train.gradient_bosting: unknown key; did you mean gradient_boosting?"
    )
    assert refusal(changed(zzz={})).startswith("params.yaml: train.zzz: unknown key; the models are gradient_boosting, ")


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("gradient_boosting", "max_feature", 1, "max_feature: unknown key; did you mean max_features?"),
        ("gradient_boosting", "zzz", 1, "zzz: unknown key; remove it, or add it to src/churn/models/gradient_boosting.py"),
        ("gradient_boosting", "depths", [], "depths: []: "),
        ("gradient_boosting", "depths", [2, 0], "depths.1: 0: "),
        ("gradient_boosting", "learning_rate", 0, "learning_rate: 0: "),
        ("gradient_boosting", "subsample", 1.01, "subsample: 1.01: "),
        ("hist_gradient_boosting", "max_iter", 0, "max_iter: 0: "),
        ("hist_gradient_boosting", "categorical_features", [0], "categorical_features: unknown key; "),
        ("logistic_regression", "c", -1.0, "c: -1.0: "),
    ],
)
def test_an_unknown_key_of_an_unselected_model_is_refused(section: str, key: str, value: Any, reason: str) -> None:
    train = changed(**{section: PARAMS.sections[section] | {key: value}, "model": "logistic_regression"})

    assert refusal(train).startswith(f"params.yaml: train.{section}.{reason}")


@pytest.mark.parametrize("name", models.names())
class TestModel:
    def test_a_model_ranks_unseen_rows(self, name: str, inputs: Matrix, labels: Labels) -> None:
        estimator = fitted(models.build(PARAMS, name), inputs[:400], labels[:400])

        assert roc_auc(labels[400:], estimator.predict_proba(inputs[400:].astype(np.float64))[:, 1]) > 0.75

    def test_choices_are_hyperparameters_of_the_model(self, name: str) -> None:
        model = models.build(PARAMS, name)

        for choice in model.choices():
            assert choice.items() <= model.unfitted(**choice).get_params().items()

    def test_the_same_rows_give_the_same_bytes(self, name: str, inputs: Matrix, labels: Labels) -> None:
        model = models.build(PARAMS, name)

        first, second = (model.export(fitted(model, inputs, labels), inputs, metadata={"a": "b"}) for _ in range(2))

        assert first == second

    def test_onnx_probabilities_equal_the_models(self, name: str, inputs: Matrix, labels: Labels) -> None:
        model = models.build(PARAMS, name)
        estimator = fitted(model, inputs, labels)

        found = onnx.predict(onnx.session(model.export(estimator, inputs, metadata={})), UNSEEN)

        np.testing.assert_allclose(found, estimator.predict_proba(UNSEEN.astype(np.float64))[:, 1], rtol=0, atol=1e-6)

    def test_the_last_stage_equals_the_model(self, name: str, inputs: Matrix, labels: Labels) -> None:
        model = models.build(PARAMS, name)
        estimator = fitted(model, inputs, labels)

        stages = list(model.stages(estimator, UNSEEN))

        assert len(stages) == (0 if name == "logistic_regression" else 100)
        for last in stages[-1:]:
            np.testing.assert_array_equal(last, estimator.predict_proba(UNSEEN))


@pytest.mark.parametrize("name", ["gradient_boosting", "hist_gradient_boosting"])
def test_a_different_seed_gives_a_different_model(name: str, inputs: Matrix, labels: Labels) -> None:
    first, second = (fitted(models.build(changed(seed=seed), name), inputs, labels).predict_proba(UNSEEN) for seed in (7, 8))

    assert (first != second).any()


def histograms(**values: Any) -> Model:
    return models.build(
        changed(hist_gradient_boosting=PARAMS.sections["hist_gradient_boosting"] | values), "hist_gradient_boosting"
    )


def neighbours() -> tuple[Matrix, Labels]:
    """Pairs of neighbouring float32 numbers, of which the larger one churns: good thresholds lie between the two of a pair."""
    low = np.linspace(1, 2, 8, dtype=np.float32).repeat(50)
    high = np.nextafter(low, np.float32(9))
    return np.concatenate([low, high])[:, np.newaxis], np.repeat([False, True], 400)


def test_histogram_thresholds_between_adjacent_floats_survive_float32() -> None:
    X, y = neighbours()
    model = histograms(depths=[5], min_samples_leaf=5, max_features=1.0)
    estimator = fitted(model, X, y)
    thresholds = np.concatenate([tree.nodes["num_threshold"] for (tree,) in estimator._predictors])
    assert (thresholds.astype(np.float32) > thresholds).any(), "some threshold would be rounded up"

    found = onnx.predict(onnx.session(model.export(estimator, X, metadata={})), X)

    np.testing.assert_allclose(found, estimator.predict_proba(X)[:, 1], rtol=0, atol=1e-6)


def test_histograms_do_not_depend_on_the_order_of_the_rows(inputs: Matrix, labels: Labels) -> None:
    order, model = np.random.default_rng(0).permutation(len(inputs)), histograms()

    one, other = fitted(model, inputs, labels), fitted(model, inputs[order], labels[order])

    np.testing.assert_allclose(one.predict_proba(UNSEEN), other.predict_proba(UNSEEN), rtol=0, atol=1e-12)


def test_histograms_use_the_encoded_inputs_as_numbers() -> None:
    assert "categorical_features" not in HistogramParams.model_fields
    assert histograms().unfitted().categorical_features is None
