"""The shipped parameters on the shipped customers: the gate's first question does not depend on the order of the rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn import metrics, models, rows, sources
from churn.contract import LABEL
from churn.features import FEATURES, Matrix, derive, encode
from churn.params import load_params
from churn.stages.prepare import split

ROOT = Path(__file__).parents[2]


def inputs(frame: pd.DataFrame) -> Matrix:
    derived = derive(frame)
    return encode({each.name: derived[each.name] for each in FEATURES})


@pytest.mark.parametrize("order", range(3))
def test_the_model_passes_against_its_baseline_in_whatever_order_a_database_gives_the_rows(
    order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params = load_params()
    frame, _ = rows.typed(sources.read(str(ROOT / "data/raw/customers.csv")))
    train, test = split(frame, params.prepare.test_fraction)
    train = train.iloc[np.random.default_rng(order).permutation(len(train))]
    X, y = inputs(train), train[LABEL].to_numpy(bool)

    depth = models.choose_depth(X, y, params.train)
    model = models.gradient_boosting(params.train, depth).fit(X, y)

    X_test, y_test = inputs(test), test[LABEL].to_numpy(bool)
    scores = [
        metrics.roc_auc(y_test, each.predict_proba(X_test.astype(np.float64))[:, 1])
        for each in (model, models.fit_baseline(X, y, params.train))
    ]
    assert scores[0] - scores[1] >= -params.evaluate.gate.baseline_auc_margin
