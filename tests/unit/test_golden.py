"""The golden rows show every exchange of two inputs that the model can see."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churn.adapters import onnx
from churn.contract import LABEL, RAW_FEATURES
from churn.domain import golden
from churn.domain.encoding import Matrix, derive, encode
from churn.pipeline.train import golden_rows
from factory import rows

MODELS: dict[str, Callable[[], Any]] = {
    "trees": lambda: GradientBoostingClassifier(n_estimators=50, max_depth=3, random_state=0),
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.DataFrame(derive(rows(1000, seed=3)))


@pytest.fixture(scope="module", params=MODELS)
def session(request: pytest.FixtureRequest, frame: pd.DataFrame) -> Any:
    X = encode(frame)
    estimator = MODELS[request.param]().fit(X, frame[LABEL].to_numpy(dtype=bool))
    return onnx.session(onnx.export(estimator, X, metadata={}))


def gap(session: Any, X: Matrix, first: int, second: int) -> float:
    """By how much exchanging two inputs changes a prediction at most."""
    swapped = X.copy()
    swapped[:, [first, second]] = X[:, [second, first]]
    return float(np.abs(onnx.predict(session, swapped) - onnx.predict(session, X)).max())


@pytest.mark.reported
def test_swapping_two_used_inputs_changes_a_golden_prediction(session: Any, frame: pd.DataFrame) -> None:
    X = encode(frame)
    chosen = X[golden.choose(X, lambda inputs: onnx.predict(session, inputs))]
    pairs = list(combinations(range(X.shape[1]), 2))

    # With the margin of `choose`, on all rows: the model ignores the other pairs, or they are always equal.
    matter = [pair for pair in pairs if gap(session, X, *pair) > 100 * golden.TOLERANCE]

    assert len(matter) > len(pairs) / 2
    assert [pair for pair in matter if not gap(session, chosen, *pair) > golden.TOLERANCE] == []


def test_golden_rows_vary_in_every_used_input(session: Any, frame: pd.DataFrame) -> None:
    X = encode(frame)

    chosen = golden.choose(X, lambda inputs: onnx.predict(session, inputs))

    varies = X.min(axis=0) < X.max(axis=0)
    assert len(chosen) >= golden.ROWS
    assert len(chosen) == len(set(chosen))
    matter = {column for pair in combinations(range(X.shape[1]), 2) if gap(session, X, *pair) > 1e-3 for column in pair}
    assert [column for column in sorted(matter) if varies[column] and np.ptp(X[chosen][:, column]) == 0] == []


@pytest.mark.parametrize("n", [1, 2, 5])
def test_all_rows_are_golden_if_there_are_few(n: int) -> None:
    X = np.arange(3 * n, dtype=np.float32).reshape(n, 3)

    assert golden.choose(X, lambda inputs: inputs[:, 0].astype(np.float64)) == list(range(n))


def test_a_model_that_ignores_its_inputs_has_golden_rows() -> None:
    X = np.zeros((40, 3), dtype=np.float32)

    assert len(golden.choose(X, lambda inputs: np.zeros(len(inputs)))) == golden.ROWS


def test_the_golden_rows_are_stored_without_identifiers(session: Any, frame: pd.DataFrame) -> None:
    stored = golden_rows(frame, session)

    assert {name for customer in stored["customers"] for name in customer} == {column.name for column in RAW_FEATURES}
    assert len(stored["customers"]) == len(stored["churn_probabilities"]) >= golden.ROWS
