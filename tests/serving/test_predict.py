"""Scoring by attributes and by identifier."""

import shutil
from pathlib import Path

import numpy as np

from served import CUSTOMERS, Releases, Serve, customers


def test_a_prediction_is_the_one_that_scikit_learn_makes(releases: Releases, serve: Serve) -> None:
    number = releases.release()
    server = serve().ready()
    given = customers(50)

    answer = server.predict(given).json()

    assert answer["model_version"] == number
    found = [each["churn_probability"] for each in answer["predictions"]]
    np.testing.assert_allclose(found, releases.probabilities(number, given), atol=1e-6)
    assert [each["customer_id"] for each in answer["predictions"]] == [each["customer_id"] for each in given]


def test_a_customer_by_identifier_scores_as_the_same_customer_inline(
    releases: Releases, serve: Serve, filled: Path, tmp_path: Path
) -> None:
    releases.release()
    shutil.copy(filled, tmp_path / "features.db")
    server = serve().ready()
    given = customers(CUSTOMERS)[:100]

    by_id = server.http.post("/predict/by-id", json={"customer_ids": [each["customer_id"] for each in given]}).json()
    inline = server.predict(given).json()

    np.testing.assert_allclose(
        [each["churn_probability"] for each in by_id["predictions"]],
        [each["churn_probability"] for each in inline["predictions"]],
        atol=1e-6,
    )
