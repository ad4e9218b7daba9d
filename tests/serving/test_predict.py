"""Scoring by attributes and by identifier."""

import httpx2
import numpy as np
import pytest

from served import CUSTOMERS, THRESHOLD, Releases, Running, Serve, as_sent, customers, new_customers

pytestmark = pytest.mark.both_ways


def probabilities(answer: httpx2.Response) -> list[float]:
    """What an answer says, in its order."""
    return [each["churn_probability"] for each in answer.json()["predictions"]]


def test_a_prediction_equals_scikit_learn(released: Releases, server: Running) -> None:
    given = customers(50)

    answer = server.predict(given).json()

    assert answer["model_version"] == "1"
    found = [each["churn_probability"] for each in answer["predictions"]]
    np.testing.assert_allclose(found, released.probabilities("1", given), atol=1e-6)
    assert [each["customer_id"] for each in answer["predictions"]] == [each["customer_id"] for each in given]


def test_scores_by_identifier_equal_inline_scores_and_scikit_learn(released: Releases, stocked: Running) -> None:
    given = [*customers(CUSTOMERS)[: CUSTOMERS - 1], *as_sent(new_customers())]  # the last one's features are too old

    by_id = stocked.http.post("/predict/by-id", json={"customer_ids": [each["customer_id"] for each in given]})
    inline = stocked.predict(given)

    expected = released.probabilities("1", given)
    np.testing.assert_allclose(probabilities(by_id), expected, atol=1e-6)
    np.testing.assert_allclose(probabilities(inline), expected, atol=1e-6)
    assert [each["customer_id"] for each in by_id.json()["predictions"]] == [each["customer_id"] for each in given]


def test_a_customer_scores_the_same_from_redis_and_its_password_is_in_no_log(
    releases: Releases, serve: Serve, filled_redis: str
) -> None:
    number = releases.release()
    server = serve(online_store=filled_redis, store_timeout_s="5").ready()
    given = [*customers(CUSTOMERS)[: CUSTOMERS - 1], *as_sent(new_customers())]

    by_id = server.http.post("/predict/by-id", json={"customer_ids": [each["customer_id"] for each in given]})
    unknown = server.http.post("/predict/by-id", json={"customer_ids": ["nobody"]})

    np.testing.assert_allclose(probabilities(by_id), releases.probabilities(number, given), atol=1e-6)
    assert unknown.status_code == 404
    assert "s3cret" not in server.log.read_text()


def test_scores_of_1000_customers_equal_scikit_learn_in_order(released: Releases, server: Running) -> None:
    given = [*customers(900, seed=2), *customers(100, seed=3, member_months=0)]
    shuffled = [given[each] for each in np.random.default_rng(0).permutation(1000)]

    answer = server.predict(shuffled)

    assert answer.status_code == 200
    expected = released.probabilities("1", shuffled)
    assert len(set(expected.round(6))) > 20
    np.testing.assert_allclose(probabilities(answer), expected, atol=1e-6)
    assert len({each["prediction_id"] for each in answer.json()["predictions"]}) == 1000


def test_more_than_1000_customers_are_refused(released: Releases, server: Running) -> None:
    inline = server.predict(customers(1001))
    by_id = server.http.post("/predict/by-id", json={"customer_ids": [f"c{number}" for number in range(1001)]})

    assert [each.status_code for each in (inline, by_id)] == [413, 413]
    assert inline.json()["detail"] == "1001 rows at once; at most 1000 are taken: send fewer"


def test_a_customer_scores_the_same_alone_and_among_others(released: Releases, server: Running) -> None:
    given = customers(50, seed=4)

    together = probabilities(server.predict(given))
    alone = [probabilities(server.predict([each]))[0] for each in given]

    np.testing.assert_allclose(alone, together, atol=1e-9)


def test_a_new_customer_needs_neither_a_total_nor_an_identifier(released: Releases, server: Running) -> None:
    given = customers(20, seed=5, member_months=0)
    assert all(each["total_fees"] is None for each in given)
    without = [{name: value for name, value in each.items() if name not in ("customer_id", "total_fees")} for each in given]

    answer = server.predict(without)

    assert answer.status_code == 200
    np.testing.assert_allclose(probabilities(answer), released.probabilities("1", given), atol=1e-6)
    assert [each["customer_id"] for each in answer.json()["predictions"]] == [None] * 20


def test_the_decision_and_the_risk_use_the_version_threshold(released: Releases, server: Running) -> None:
    for each in server.predict(customers(300, seed=6)).json()["predictions"]:
        probability = each["churn_probability"]
        assert each["churn"] == (probability >= THRESHOLD)
        assert each["risk"] == ("high" if probability >= 0.5 else "medium" if probability >= THRESHOLD else "low")


def test_optional_fields_can_be_null(server: Running) -> None:
    (given,) = customers(1, seed=5, member_months=0)
    outcome = {"customer_id": None, "prediction_id": "none", "churned": True, "observed_at": "2026-02-01T00:00:00Z"}

    answers = {
        "/predict": {"customers": [given | {"customer_id": None, "total_fees": None}]},
        "/explain": {"customers": [given], "customer_ids": None},
        "/outcomes": {"outcomes": [outcome]},
    }

    assert {path: server.http.post(path, json=body).status_code for path, body in answers.items()} == dict.fromkeys(answers, 200)
