import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churn.adapters import bundle, onnx
from churn.domain.encoding import Matrix, derive, encode
from churn.domain.metrics import Labels
from churn.errors import ModelError
from factory import rows


@pytest.fixture(scope="module")
def inputs() -> Matrix:
    return encode(derive(rows(300)))


@pytest.fixture(scope="module")
def labels(inputs: Matrix) -> Labels:
    return np.random.default_rng(0).random(len(inputs)) < np.where(inputs[:, 4] < np.median(inputs[:, 4]), 0.8, 0.1)


def boosting() -> Any:
    return GradientBoostingClassifier(n_estimators=20, random_state=0)


def logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


@pytest.fixture(scope="module")
def content(inputs: Matrix, labels: Labels) -> bytes:
    return onnx.export(boosting().fit(inputs, labels), inputs, metadata={"contract_sha256": "abc", "inputs": "a\nb"})


@pytest.mark.parametrize("unfitted", [boosting, logistic])
def test_onnx_probabilities_equal_scikit_learn(unfitted: Any, inputs: Matrix, labels: Labels) -> None:
    estimator = unfitted().fit(inputs, labels)
    unseen = encode(derive(rows(200, seed=1)))

    session = onnx.session(onnx.export(estimator, inputs, metadata={}))

    np.testing.assert_allclose(onnx.predict(session, unseen), estimator.predict_proba(unseen)[:, 1], atol=1e-6)


def test_a_single_customer_gets_the_same_probability_as_in_a_batch(content: bytes, inputs: Matrix) -> None:
    session = onnx.session(content)

    alone = [onnx.predict(session, inputs[[index]])[0] for index in range(20)]

    assert alone == onnx.predict(session, inputs)[:20].tolist()


def test_no_rows_give_no_probabilities(content: bytes, inputs: Matrix) -> None:
    assert onnx.predict(onnx.session(content), inputs[:0]).shape == (0,)


def test_several_threads_give_the_same_probabilities(content: bytes, inputs: Matrix) -> None:
    one, two = (onnx.predict(onnx.session(content, threads=threads), inputs) for threads in (1, 2))

    np.testing.assert_allclose(one, two, atol=1e-6)


def test_the_model_has_its_metadata(content: bytes) -> None:
    assert onnx.session(content).get_modelmeta().custom_metadata_map == {"contract_sha256": "abc", "inputs": "a\nb"}


def test_the_model_has_one_input_matrix_and_a_named_output(content: bytes) -> None:
    session = onnx.session(content)

    assert [each.name for each in session.get_inputs()] == [onnx.INPUT]
    assert onnx.OUTPUT in [each.name for each in session.get_outputs()]


def test_the_same_model_has_the_same_bytes(content: bytes, inputs: Matrix, labels: Labels) -> None:
    again = onnx.export(boosting().fit(inputs, labels), inputs, metadata={"inputs": "a\nb", "contract_sha256": "abc"})

    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(content).hexdigest()


def test_an_estimator_with_a_wrong_conversion_is_refused() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 6, (400, 2)).astype(np.float32)
    # skl2onnx takes the native categories for numbers, and says nothing.
    estimator = HistGradientBoostingClassifier(categorical_features=[0], max_iter=20).fit(X, X[:, 0] % 2 == 1)

    with pytest.raises(ModelError, match=r"probabilities differ by 0\.\d+ from scikit-learn's"):
        onnx.export(estimator, X, metadata={})


def test_an_estimator_whose_conversion_loses_precision_is_refused() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(10_000, 1, (400, 2)).astype(np.float32)
    # Unscaled inputs cancel out in double precision, which ONNX's single one cannot follow.
    estimator = LogisticRegression(C=1e3, max_iter=5000).fit(X.astype(np.float64), X[:, 0] > X[:, 1])

    with pytest.raises(ModelError, match=r"more than 1e-05; not exported"):
        onnx.export(estimator, X, metadata={})


def test_an_estimator_without_a_conversion_is_refused_by_name(inputs: Matrix, labels: Labels) -> None:
    class HomeMade(LogisticRegression):  # type: ignore[misc]
        pass

    with pytest.raises(ModelError, match="HomeMade: skl2onnx knows no conversion"):
        onnx.export(HomeMade(max_iter=5000).fit(inputs, labels), inputs, metadata={})


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"rubbish", lambda whole: whole[: len(whole) // 2]])
def test_bytes_that_are_not_a_model_are_refused(damage: Any, content: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        onnx.session(damage(content))


def test_a_model_with_a_damaged_byte_loads_or_is_refused(inputs: Matrix, labels: Labels) -> None:
    small = onnx.export(LogisticRegression(max_iter=5000).fit(inputs, labels), inputs, metadata={"contract_sha256": "abc"})
    refused = 0

    for index in range(len(small)):
        damaged = bytearray(small)
        damaged[index] ^= 0xFF
        try:
            onnx.session(bytes(damaged))
        except ModelError:
            refused += 1

    assert refused > 0


def test_a_model_is_read_from_a_file(content: bytes, inputs: Matrix, tmp_path: Path) -> None:
    path = tmp_path / bundle.MODEL
    path.write_bytes(content)

    np.testing.assert_array_equal(onnx.predict(onnx.session(path), inputs[:5]), onnx.predict(onnx.session(content), inputs[:5]))


@pytest.mark.parametrize("text", [None, "", "rubbish"])
def test_a_file_that_is_not_a_model_is_refused_by_its_path(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / bundle.MODEL
    if text is not None:
        path.write_text(text)

    with pytest.raises(ModelError, match=r"model\.onnx: not an ONNX model"):
        onnx.session(path)
