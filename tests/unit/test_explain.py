import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from churn import models
from churn.adapters import bundle, onnx
from churn.domain.encoding import Matrix, derive, encode, encoded_names
from churn.domain.explanations import TOLERANCE, Explainer, by_feature, prove
from churn.domain.metrics import Labels
from churn.errors import ModelError
from churn.features import FEATURES
from churn.models.gradient_boosting import explain
from churn.params import load_params
from churn.pipeline.train import reference, write_bundle
from factory import rows

COMMITTED = load_params(Path(__file__).parents[2] / "params.yaml").train
TREES_100 = {
    name: COMMITTED.sections[name] | {steps: 100}
    for name, steps in (("gradient_boosting", "n_estimators"), ("hist_gradient_boosting", "max_iter"))
}
PARAMS = COMMITTED.model_copy(update=TREES_100)
BOOSTING, HISTOGRAMS, LINEAR = (
    models.build(PARAMS, name) for name in ("gradient_boosting", "hist_gradient_boosting", "logistic_regression")
)
UNSEEN = encode(derive(rows(200, seed=1)))
SIGNALS = ("member_months", "monthly_fee", "pool_access=Full pass", "commitment=Two seasons")
DEPTHS = (2, 3, 5)
TREES = (*(f"depth {depth}" for depth in DEPTHS), *(f"histogram depth {depth}" for depth in DEPTHS))
KINDS = (*TREES, "logistic regression")


@pytest.fixture(scope="module")
def inputs() -> Matrix:
    return encode(derive(rows(1000)))


@pytest.fixture(scope="module")
def labels(inputs: Matrix) -> Labels:
    months, fee, full, commitment = (inputs[:, encoded_names().index(name)] for name in SIGNALS)
    odds = 1.5 * full - 2 * commitment + 2 * (months < np.median(months)) * (fee > np.median(fee)) - 1
    return np.asarray(np.random.default_rng(0).random(len(inputs)) < 1 / (1 + np.exp(-odds)))


@pytest.fixture(scope="module")
def fitted(inputs: Matrix, labels: Labels) -> dict[str, Any]:
    unfitted = {f"depth {depth}": BOOSTING.unfitted(max_depth=depth) for depth in DEPTHS}
    unfitted |= {f"histogram depth {depth}": HISTOGRAMS.unfitted(max_depth=depth) for depth in DEPTHS}
    unfitted["logistic regression"] = LINEAR.unfitted()
    return {kind: estimator.fit(inputs.astype(np.float64), labels) for kind, estimator in unfitted.items()}


@pytest.fixture(scope="module")
def described(fitted: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {kind: description(kind, estimator) for kind, estimator in fitted.items()}


def description(kind: str, estimator: Any) -> dict[str, Any]:
    model = {"depth": BOOSTING, "histogram": HISTOGRAMS, "logistic": LINEAR}[kind.partition(" ")[0]]
    found = model.explanation(estimator)
    assert found
    return found


def log_odds(explainer: Explainer, X: Matrix) -> npt.NDArray[np.float64]:
    return np.asarray(explainer.base + explainer.contributions(X).sum(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_and_base_sum_to_the_log_odds(kind: str, fitted: dict[str, Any], described: dict[str, Any]) -> None:
    estimator, explainer = fitted[kind], Explainer(described[kind])

    contributions = explainer.contributions(UNSEEN)

    expected = estimator.decision_function(UNSEEN.astype(np.float64))
    assert contributions.shape == UNSEEN.shape
    np.testing.assert_allclose(explainer.base + contributions.sum(axis=1), expected, rtol=0, atol=1e-9)
    assert np.ptp(expected) > 1, "there is something to explain"


# The first import of shap compiles with numba, and both warn of what they themselves use.
@pytest.mark.filterwarnings("ignore")
def test_contributions_of_trees_are_those_of_tree_shap(fitted: dict[str, Any], described: dict[str, Any]) -> None:
    import shap  # type: ignore[import-untyped]

    for kind in TREES:
        explainer, peer = Explainer(described[kind]), shap.TreeExplainer(fitted[kind])

        ours, theirs = explainer.contributions(UNSEEN), peer.shap_values(UNSEEN)

        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
        assert explainer.base == pytest.approx(float(np.ravel(peer.expected_value)[0]), abs=1e-6)
        for mine, other in zip(ours, theirs, strict=True):
            assert pd.Series(mine.round(9)).corr(pd.Series(other.round(9)), method="spearman") >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_explained_log_odds_equal_onnx_scores(
    kind: str, fitted: dict[str, Any], described: dict[str, Any], inputs: Matrix
) -> None:
    session = onnx.session(onnx.export(fitted[kind], inputs, metadata={}))

    probability = onnx.predict(session, UNSEEN)

    np.testing.assert_allclose(
        log_odds(Explainer(described[kind]), UNSEEN), np.log(probability / (1 - probability)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_restored_exactly_from_json(kind: str, described: dict[str, Any]) -> None:
    read = json.loads(json.dumps(described[kind], allow_nan=False))

    assert read == described[kind]
    assert Explainer(read).base == Explainer(described[kind]).base
    np.testing.assert_array_equal(Explainer(read).contributions(UNSEEN), Explainer(described[kind]).contributions(UNSEEN))


def test_the_same_rows_give_the_same_description(inputs: Matrix, labels: Labels) -> None:
    first, second = (json.dumps(explain(BOOSTING.unfitted(max_depth=3).fit(inputs, labels))) for _ in range(2))

    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_explained_like_single_customers(kind: str, described: dict[str, Any], inputs: Matrix) -> None:
    explainer = Explainer(described[kind])

    together = explainer.contributions(inputs)

    np.testing.assert_array_equal(together, np.concatenate([explainer.contributions(inputs[[row]]) for row in range(1000)]))


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_have_no_contributions(kind: str, described: dict[str, Any]) -> None:
    assert Explainer(described[kind]).contributions(UNSEEN[:0]).shape == (0, UNSEEN.shape[1])


def test_the_base_of_trees_is_their_average_over_the_training_rows(inputs: Matrix, labels: Labels) -> None:
    every_row = BOOSTING.unfitted(max_depth=3).set_params(subsample=1.0).fit(inputs, labels)

    base = Explainer(explain(every_row)).base

    assert base == pytest.approx(every_row.decision_function(inputs).mean(), abs=1e-9)


def test_the_average_customer_of_a_regression_has_the_base_and_no_contributions(
    fitted: dict[str, Any], described: dict[str, Any], inputs: Matrix
) -> None:
    explainer = Explainer(described["logistic regression"])
    mean = inputs.astype(np.float64).mean(axis=0, keepdims=True)

    np.testing.assert_allclose(explainer.contributions(mean.astype(np.float32)), 0, atol=1e-5)
    assert explainer.base == pytest.approx(fitted["logistic regression"].decision_function(mean)[0], abs=1e-9)


def test_an_unused_column_has_no_contribution(inputs: Matrix, labels: Labels) -> None:
    X = inputs.copy()
    X[:, 3] = 1

    contributions = Explainer(explain(BOOSTING.unfitted(max_depth=3).fit(X, labels))).contributions(UNSEEN)

    assert (contributions[:, 3] == 0).all()


def test_several_splits_on_one_column_are_explained_together() -> None:
    X = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    estimator = GradientBoostingClassifier(n_estimators=10, max_depth=5).fit(X, (np.abs(X[:, 0]) < 1) & (X[:, 1] > -1))

    explainer = Explainer(explain(estimator))

    np.testing.assert_allclose(log_odds(explainer, X), estimator.decision_function(X), rtol=0, atol=1e-9)


def test_a_value_equal_to_the_threshold_goes_left() -> None:
    X = np.repeat(np.array([0, 0.1, 0.2, 0.3], dtype=np.float32), 20)[:, np.newaxis]
    estimator = GradientBoostingClassifier(n_estimators=5, max_depth=2).fit(X, (X[:, 0] > 0.15) & (np.arange(80) % 3 != 0))
    thresholds = np.unique(np.concatenate([tree.tree_.threshold for tree in estimator.estimators_[:, 0]])).astype(np.float32)
    around = np.concatenate([thresholds, np.nextafter(thresholds, np.float32(-9)), np.nextafter(thresholds, np.float32(9))])

    explainer = Explainer(explain(estimator))

    rows_around = around[:, np.newaxis]
    np.testing.assert_allclose(log_odds(explainer, rows_around), estimator.decision_function(rows_around), rtol=0, atol=1e-9)


def test_a_stump_has_contributions_of_its_only_column() -> None:
    X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    estimator = GradientBoostingClassifier(n_estimators=1, max_depth=1).fit(X, X[:, 1] > 0)

    contributions = Explainer(explain(estimator)).contributions(X)

    assert (contributions[:, [0, 2]] == 0).all()
    assert ((contributions[:, 1] > 0) == (X[:, 1] > 0)).all()


def test_trees_of_a_single_leaf_have_no_contributions(inputs: Matrix, labels: Labels) -> None:
    estimator = GradientBoostingClassifier(n_estimators=3, min_samples_leaf=len(inputs)).fit(inputs, labels)

    explainer = Explainer(json.loads(json.dumps(explain(estimator))))

    assert (explainer.contributions(UNSEEN) == 0).all()
    assert explainer.base == pytest.approx(np.log(labels.mean() / (1 - labels.mean())))


@pytest.mark.parametrize("changed", [{"loss": "exponential"}, {"init": LogisticRegression(max_iter=5000)}], ids=str)
def test_an_explanation_that_does_not_match_the_scores_is_refused(
    changed: dict[str, Any], inputs: Matrix, labels: Labels
) -> None:
    estimator = GradientBoostingClassifier(n_estimators=5, **changed).fit(inputs, labels)

    with pytest.raises(ModelError, match=r"probabilities differ by 0\.\d+ from the model's"):
        prove(explain(estimator), inputs, estimator.predict_proba)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "forest"}, "kind: 'forest'"),
        ({"base": None}, "base: null, or not finite"),
        ({"base": float("inf")}, "base: null, or not finite"),
        ({"base": [1.0]}, "base: shape"),
        ({"columns": 0}, "columns: 0 is not"),
        ({"columns": 2.5}, "columns: 2.5 is not"),
        ({"columns": 2}, "feature: a number that is none of the 2 columns"),
        ({"value": ["a"]}, "value: not numbers"),
        ({"value": [10**400]}, "value: not numbers"),
        ({"value": [1.0]}, "feature: shape"),
        ({"feature": [[0, 1], [0]]}, "feature: not numbers in rows of one length"),
        ({"feature": [[-1, 1], [0, 1]]}, "feature: a number that is none"),
        ({"feature": [[0.5, 1], [0, 1]]}, "feature: a number that is none"),
        ({"lower": [[None, 1], [float("-inf"), 1]]}, "lower: null, or not finite"),
        ({"upper": [None, 1]}, "upper: shape"),
        ({"share": [[0, 1], [1, 1]]}, r"share: a number outside of \(0, 1\]"),
        ({"share": [[None, 1], [1, 1]]}, "share: null"),
    ],
)
def test_malformed_trees_are_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    pairs: list[list[float | None]] = [[0, 5], [2, 1]]
    whole = {"kind": "trees", "columns": 6, "base": 0.0, "value": [1.0, 2.0], "feature": pairs, "lower": pairs, "upper": pairs}
    description: dict[str, Any] = whole | {"share": [[0.5, 1], [1, 1]]}
    Explainer(description)

    with pytest.raises(ModelError, match=rf"^explain\.json: {message}[^\n]*; write it with `churn train`$"):
        Explainer(description | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mean": [1.0]}, "mean: shape"),
        ({"slope": "steep"}, "slope: not numbers"),
        ({"slope": [float("nan"), 1.0]}, "slope: null, or not finite"),
        ({"columns": 3}, "columns: 3, and 2 slopes"),
    ],
)
def test_a_malformed_regression_is_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    description = {"kind": "linear", "columns": 2, "base": 0.0, "mean": [0.0, 1.0], "slope": [1.0, 2.0]}
    Explainer(description)

    with pytest.raises(ModelError, match=rf"^explain\.json: {message}[^\n]*$"):
        Explainer(description | changed)


@pytest.mark.parametrize("kind", ["depth 2", "logistic regression"])
def test_every_field_of_a_description_is_required(kind: str, described: dict[str, Any]) -> None:
    for missing in described[kind]:
        with pytest.raises(ModelError, match=rf"^explain\.json: {missing}: [^\n]*$"):
            Explainer({name: value for name, value in described[kind].items() if name != missing})


@pytest.mark.parametrize("description", [[], None, "trees", {}])
def test_an_invalid_description_is_refused(description: Any) -> None:
    with pytest.raises(ModelError, match=r"^explain\.json: kind: None; it is trees or linear"):
        Explainer(description)


@pytest.mark.parametrize("kind", ["depth 2", "logistic regression"])
def test_inputs_with_a_wrong_number_of_columns_are_refused(kind: str, described: dict[str, Any]) -> None:
    explainer = Explainer(described[kind])

    for X in (UNSEEN[:, :-1], np.hstack([UNSEEN, UNSEEN]), UNSEEN[0]):
        with pytest.raises(ModelError, match=rf"inputs of shape .*, not \(n, {explainer.columns}\)"):
            explainer.contributions(X)


def test_by_feature_sums_the_values_of_a_category() -> None:
    names = ("member_months", "commitment=Season", "commitment=Two seasons", "is_beginner")

    assert by_feature(np.array([[1.0, 2.0, 4.0, 8.0], [0.5, 0.0, 0.0, -1.0]]), names).tolist() == [[1, 6, 8], [0.5, 0, -1]]


def test_by_feature_has_one_contribution_per_feature_in_order(described: dict[str, Any]) -> None:
    contributions = Explainer(described["depth 3"]).contributions(UNSEEN)

    per_feature = by_feature(contributions, encoded_names())

    assert list(dict.fromkeys(name.partition("=")[0] for name in encoded_names())) == [each.name for each in FEATURES]
    assert per_feature.shape == (len(UNSEEN), len(FEATURES))
    np.testing.assert_allclose(per_feature.sum(axis=1), contributions.sum(axis=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_explanation_that_matches_the_scores_is_accepted(kind: str, fitted: dict[str, Any], described: dict[str, Any]) -> None:
    prove(described[kind], UNSEEN, fitted[kind].predict_proba)

    explainer = Explainer(described[kind])
    log_odds = explainer.base + explainer.contributions(UNSEEN).sum(axis=1)
    expected = fitted[kind].predict_proba(UNSEEN.astype(np.float64))[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), expected, rtol=0, atol=TOLERANCE)


@pytest.fixture
def bundle_of(fitted: dict[str, Any], inputs: Matrix, tmp_path: Path) -> Callable[[dict[str, Any] | None], dict[str, bytes]]:
    """Writes the bundle of boosting with that explanation, and reads it."""
    frame, folder = pd.DataFrame(derive(rows(1000))), tmp_path / "candidate"

    def written(explanation: dict[str, Any] | None) -> dict[str, bytes]:
        content = onnx.export(fitted["depth 3"], inputs, metadata={})
        watched = reference(frame, np.zeros(1000), 10)
        write_bundle(folder, content, frame, watched, explanation=explanation, importance={"member_months": 1.0})
        return bundle.read(folder, bundle.MAX_BYTES)

    return written


def test_the_bundle_explanation_matches_its_model(
    bundle_of: Callable[[dict[str, Any]], dict[str, bytes]], described: dict[str, Any]
) -> None:
    explainer = Explainer(json.loads(bundle_of(described["depth 3"])[bundle.EXPLAIN]))

    np.testing.assert_array_equal(explainer.contributions(UNSEEN), Explainer(described["depth 3"]).contributions(UNSEEN))


def test_the_bundle_of_a_model_without_an_explanation_has_all_other_files(bundle_of: Callable[[None], dict[str, bytes]]) -> None:
    files = bundle_of(None)

    assert set(files) == set(bundle.MAX_BYTES) - {bundle.EXPLAIN}
    assert json.loads(files[bundle.IMPORTANCE]) == {"member_months": 1.0}


def test_the_explainer_imports_neither_scikit_learn_nor_pandas() -> None:
    imports = "import sys, churn.domain.explanations"
    code = imports + "; print(sorted({'sklearn', 'pandas', 'scipy', 'onnx', 'shap', 'pydantic'} & set(sys.modules)))"

    output = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout

    assert output == "[]\n"
