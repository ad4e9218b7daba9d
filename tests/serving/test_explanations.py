"""Why a customer got its score."""

from typing import Any

import numpy as np
import pytest

from churn.domain.encoding import encode, encoded_names
from churn.domain.explanations import by_feature
from churn.features import FEATURES
from served import CUSTOMERS, Releases, Running, Serve, as_sent, customers, frame_of, new_customers

pytestmark = pytest.mark.slow


@pytest.fixture
def server(stocked: Running) -> Running:
    """A server with a version and a filled online store."""
    return stocked


def explained(server: Running, **body: Any) -> dict[str, Any]:
    answer = server.http.post("/explain", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_contributions_sum_to_the_difference_from_the_base_and_are_sorted(server: Running) -> None:
    answer = explained(server, customers=[*customers(20), *as_sent(new_customers())])

    for each in answer["explanations"]:
        given = [reason["contribution"] for reason in each["reasons"]]
        log_odds = np.log(each["churn_probability"] / (1 - each["churn_probability"]))
        assert sum(given) == pytest.approx(log_odds - answer["base_log_odds"], abs=1e-3)
        assert each["log_odds"] == pytest.approx(log_odds, abs=1e-3)
        assert np.abs(given).tolist() == sorted(np.abs(given), reverse=True)
        assert {reason["feature"] for reason in each["reasons"]} == {feature.name for feature in FEATURES}


@pytest.mark.filterwarnings("ignore")
def test_contributions_equal_shap(server: Running, released: Releases) -> None:
    import shap  # type: ignore[import-untyped]

    given = customers(100)
    expected = by_feature(shap.TreeExplainer(released.estimators["1"]).shap_values(encode(frame_of(given))), encoded_names())
    names = [feature.name for feature in FEATURES]

    answer = explained(server, customers=given)

    for row, each in zip(expected, answer["explanations"], strict=True):
        found = {reason["feature"]: reason["contribution"] for reason in each["reasons"]}
        np.testing.assert_allclose([found[name] for name in names], row, atol=1e-6)


def test_reasons_by_identifier_equal_the_reasons_by_attributes(server: Running) -> None:
    given = [*customers(CUSTOMERS)[:5], *as_sent(new_customers())[:2]]

    by_id = explained(server, customer_ids=[each["customer_id"] for each in given])
    inline = explained(server, customers=given)

    for one, other in zip(by_id["explanations"], inline["explanations"], strict=True):
        assert [reason["text"] for reason in one["reasons"]] == [reason["text"] for reason in other["reasons"]]


def test_a_reason_has_the_value_and_its_effect_on_the_odds(server: Running) -> None:
    (customer,) = customers(1, member_months=2, is_duo=True)

    (explanation,) = explained(server, customers=[customer])["explanations"]

    texts = {reason["feature"]: reason for reason in explanation["reasons"]}
    odds = np.exp(texts["member_months"]["contribution"])
    assert texts["member_months"]["text"].startswith(f"member_months is 2: odds × {odds:.2f} (Whole months since")
    assert texts["is_duo"]["text"].startswith("is_duo is yes: odds × ")


def test_a_version_without_an_explanation_scores_and_refuses_explanations(releases: Releases, serve: Serve) -> None:
    releases.release(change=lambda bundle: (bundle / "explain.json").unlink())
    server, given = serve().ready(), customers(1)

    (scored,) = server.predict(given).json()["predictions"]
    refused = server.http.post("/explain", json={"customers": given})

    assert refused.status_code == 404
    assert "version 1 has no explanation" in refused.json()["detail"]
    assert scored["churn_probability"] == pytest.approx(releases.probabilities("1", given)[0], abs=1e-6)


@pytest.mark.parametrize("body", [{}, {"customers": customers(1), "customer_ids": ["a"]}])
def test_a_request_with_both_or_neither_attributes_and_ids_is_refused(body: dict[str, Any], server: Running) -> None:
    refused = server.http.post("/explain", json=body)

    assert refused.status_code == 422
    assert "give either customers or customer_ids" in refused.json()["detail"]


def test_more_than_100_rows_to_explain_are_refused(server: Running) -> None:
    assert server.http.post("/explain", json={"customers": customers(101)}).status_code == 413
