"""The shipped parameters on the shipped customers: no order of the rows decides what is learned, or what the gate says."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from churn import metrics, models, rows, sources
from churn.contract import LABEL
from churn.features import FEATURES, Matrix, derive, encode
from churn.params import Params, load_params
from churn.stages.prepare import split

ROOT = Path(__file__).parents[2]


def inputs(frame: pd.DataFrame) -> tuple[Matrix, models.Labels]:
    derived = derive(frame)
    return encode({each.name: derived[each.name] for each in FEATURES}), frame[LABEL].to_numpy(bool)


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def sides(params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame, _ = rows.typed(sources.read(str(ROOT / "data/raw/customers.csv")))
    return split(frame, params.prepare.test_fraction)


@pytest.fixture(scope="module")
def predicted(params: Params, sides: tuple[pd.DataFrame, pd.DataFrame]) -> list[npt.NDArray[np.float64]]:
    """The test rows' probabilities by models of the same training rows in four orders."""
    train, test = sides
    found = []
    for order in range(4):
        X, y = inputs(train.iloc[np.random.default_rng(order).permutation(len(train))])
        depth = models.choose_depth(X, y, params.train)
        model = models.gradient_boosting(params.train, depth).fit(X, y)
        found.append(model.predict_proba(inputs(test)[0])[:, 1])
    return found


def test_models_of_the_same_rows_in_other_orders_say_the_same(predicted: list[npt.NDArray[np.float64]]) -> None:
    apart = max(float(np.abs(each - predicted[0]).mean()) for each in predicted)

    assert apart < 0.002


def test_the_gates_question_on_the_baseline_is_answered_alike_for_every_order(
    predicted: list[npt.NDArray[np.float64]], params: Params, sides: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    (X, y), (X_test, y_test) = map(inputs, sides)
    baseline = models.fit_baseline(X, y, params.train).predict_proba(X_test.astype(np.float64))[:, 1]

    gaps = [metrics.roc_auc(y_test, each) - metrics.roc_auc(y_test, baseline) for each in predicted]

    assert min(gaps) >= -params.evaluate.gate.baseline_auc_margin
    assert max(gaps) - min(gaps) < 0.001
