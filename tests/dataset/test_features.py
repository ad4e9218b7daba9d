"""The derived features are computed alike in training and in the server. One test per feature of your own belongs here too."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.contract import BY_NAME, Category
from churn.domain.derived import DERIVED, Feature
from churn.domain.encoding import derive, encode, encoded_names
from churn.domain.kinds import filled

of_each_feature = pytest.mark.parametrize("feature", DERIVED.values(), ids=lambda feature: feature.name)


def arrays(frame: pd.DataFrame) -> dict[str, Any]:
    """The frame as the server holds it: NumPy arrays, categories as texts."""
    texts = {name: object for name in frame if isinstance(BY_NAME[str(name)].kind, Category)}
    return {str(name): values.to_numpy() for name, values in frame.astype(texts).items()}


def test_no_derived_feature_has_the_name_of_a_column() -> None:
    assert DERIVED.keys().isdisjoint(BY_NAME)


@of_each_feature
def test_a_derived_feature_keeps_its_kind(feature: Feature, rows: pd.DataFrame) -> None:
    values: Any = np.asarray(derive(rows)[feature.name])

    holds = np.asarray(feature.kind.holds(values))

    assert (holds | ~np.asarray(filled(values)) if feature.null_as is not None else holds).all()


def test_one_row_is_encoded_as_among_many(rows: pd.DataFrame) -> None:
    some, names = rows.head(30), encoded_names(rows)

    alone = [encode(derive(arrays(some.iloc[[row]])), names) for row in range(len(some))]

    np.testing.assert_array_equal(encode(derive(some), names), np.concatenate(alone))


def test_every_input_of_the_model_is_a_finite_number(rows: pd.DataFrame) -> None:
    assert np.isfinite(encode(derive(rows), encoded_names(rows))).all()
