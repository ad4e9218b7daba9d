"""A key that is there twice in one object of a request: what it means depends on the parser, so it is refused."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from raw_http import fetch, request
from served import Running, customers

pytestmark = pytest.mark.both_ways

HERE = {"HERE": 0}
"""The place of the second key in an object."""
(CUSTOMER,) = customers(1)
TENSOR = {"name": "member_months", "shape": [1], "datatype": "INT64", "data": [5]}
OUTCOME = {"customer_id": "a", "churned": True, "observed_at": "2026-02-01T00:00:00Z"}
INFER = "/v2/models/churn/infer"

REPEATED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a column": ("/predict", {"customers": [CUSTOMER | HERE]}, '"member_months": 1'),
    "a column, escaped": ("/predict", {"customers": [CUSTOMER | HERE]}, r'"member\u005fmonths": 1'),
    "the same value": ("/predict", {"customers": [CUSTOMER | HERE]}, f'"customer_id": "{CUSTOMER["customer_id"]}"'),
    "a column of the second customer": ("/predict", {"customers": [CUSTOMER, CUSTOMER | HERE]}, '"commitment": "Season"'),
    "the customers": ("/predict", HERE | {"customers": [CUSTOMER]}, '"customers": []'),
    "the identifiers": ("/predict/by-id", HERE | {"customer_ids": ["a"]}, '"customer_ids": ["b"]'),
    "a column to explain": ("/explain", {"customers": [CUSTOMER | HERE]}, '"member_months": 1'),
    "a label": ("/outcomes", {"outcomes": [OUTCOME | HERE]}, '"churned": false'),
    "the outcomes": ("/outcomes", HERE | {"outcomes": [OUTCOME]}, '"outcomes": []'),
    "a column of a record": ("/invocations", {"dataframe_records": [CUSTOMER | HERE]}, '"member_months": 1'),
    "a key that is ignored": ("/invocations", {"dataframe_records": [CUSTOMER | {"a": 1} | HERE]}, '"a": 2'),
    "the records": ("/invocations", HERE | {"dataframe_records": [CUSTOMER]}, '"dataframe_records": []'),
    "a tensor's values": (INFER, {"inputs": [TENSOR | HERE]}, '"data": [6]'),
    "a tensor's parameter": (INFER, {"inputs": [TENSOR | {"parameters": {"a": 1} | HERE}]}, '"a": 2'),
}


@pytest.mark.reported
@pytest.mark.parametrize("kind", REPEATED)
def test_a_repeated_key_is_refused(kind: str, stocked: Running) -> None:
    path, body, again = REPEATED[kind]
    content = json.dumps(body).replace('"HERE": 0', again).encode()

    refused = fetch(stocked, request("POST", path, body=content))

    # The protocols of MLflow and KServe say 400 where the others say 422.
    assert refused.status == (400 if path in ("/invocations", INFER) else 422)
    assert "twice" in refused.body.decode()


@pytest.mark.parametrize("customer_id", ["urn:customer:1", '": ":', "{:}", '"a": 1, "a": 2'])
def test_colons_in_a_value_are_accepted(customer_id: str, server: Running) -> None:
    body = json.dumps({"customers": [CUSTOMER, CUSTOMER | {"customer_id": customer_id}]}).encode()

    answer = fetch(server, request("POST", "/predict", body=body))

    assert [each["customer_id"] for each in answer.json["predictions"]] == [CUSTOMER["customer_id"], customer_id]


def test_a_repeated_key_in_a_large_body_is_refused(server: Running) -> None:
    given = customers(300)
    body = json.dumps({"customers": [*given, CUSTOMER | HERE]})

    answer = server.http.post("/predict", json={"customers": given})
    refused = server.http.post("/predict", content=body.replace('"HERE": 0', '"commitment": "Season"'))

    assert (answer.status_code, refused.status_code) == (200, 422)


@pytest.mark.parametrize("path", ["/page/score", "/page/customer"])
def test_a_form_with_a_repeated_field_is_refused(path: str, server: Running) -> None:
    body = urlencode([("customer_id", "a"), ("customer_id", "b")]).encode()

    refused = server.http.post(path, content=body, headers={"content-type": "application/x-www-form-urlencoded"})

    assert refused.status_code == 422
