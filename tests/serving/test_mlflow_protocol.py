"""The protocol of `mlflow models serve`, tested with MLflow's own client and compared with MLflow's own server."""

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from churn.contract import ENTITY
from churn.paths import BUNDLE
from served import ROOT, Releases, Running, Serve, customers
from serving.problems import Invalid
from serving.protocols.mlflow import frames

# MLflow warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
SECRET = "8504-XZKFR"


@pytest.fixture
def mlflows(released: Releases, server: Running, tmp_path: Path) -> Iterator[TestClient]:
    """What `mlflow models serve` runs, on the version that the server has."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    from churn.adapters.mlflow.tracking import signature

    bundle = next((released.folder / "artifacts").iterdir()) / BUNDLE
    mlflow.pyfunc.save_model(
        str(tmp_path / "mlflow"),
        python_model=str(ROOT / "src/churn/adapters/mlflow/pyfunc.py"),
        artifacts={"bundle": str(bundle)},
        signature=signature(),
        pip_requirements=[],
    )
    with TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(tmp_path / "mlflow")))) as client:
        yield client


def bodies(given: list[dict[str, Any]]) -> dict[str, tuple[dict[str, str], str]]:
    """Every form that the protocol has for these customers: content type and body."""
    frame = pd.DataFrame(given)
    forms = {
        "dataframe_split": frame.to_dict(orient="split"),
        "dataframe_records": given,
        "instances": given,
        "inputs": frame.to_dict(orient="list"),
    }
    named = {name: (JSON, json.dumps({name: form})) for name, form in forms.items()}
    return named | {
        "inputs of records": (JSON, json.dumps({"inputs": given})),
        "with params": (JSON, json.dumps({"dataframe_records": given, "params": {"any": 1}})),
        "with params that are null": (JSON, json.dumps({"dataframe_records": given, "params": None})),
        "with an index that is null": (JSON, json.dumps({"dataframe_split": frame.to_dict(orient="split") | {"index": None}})),
        "csv": (CSV, frame.to_csv(index=False)),
        "csv with an index": (CSV, frame.to_csv()),
    }


def test_the_mlflow_client_works_unchanged(released: Releases, server: Running) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    given = customers(20)
    client = ScoringServerClient("127.0.0.1", server.url.rpartition(":")[2])

    client.ping()
    answer = client.invoke(pd.DataFrame(given)).get_predictions()

    assert client.get_version().startswith("3.")
    np.testing.assert_allclose(answer["churn_probability"], released.probabilities("1", given), atol=1e-6)


def test_every_body_format_gets_the_same_response_as_from_mlflow(server: Running, mlflows: TestClient) -> None:
    given = [*customers(5), *customers(1, member_months=0)]

    for name, (head, body) in bodies(given).items():
        ours, theirs = (client.post("/invocations", content=body, headers=head) for client in (server.http, mlflows))
        assert ours.status_code == theirs.status_code == 200, (name, ours.text, theirs.text)
        assert ours.json() == theirs.json(), name


def test_pandas_spellings_of_values_are_parsed_as_by_mlflow(server: Running, mlflows: TestClient) -> None:
    row = customers(1, member_months=0)[0]
    spellings: list[dict[str, Any]] = [
        {"member_months": 0.0},
        {"is_student": int(row["is_student"])},
        {"is_student": float(row["is_student"])},
        {"monthly_fee": 50},
        {"total_fees": float("nan")},
        {ENTITY: 7},
        {ENTITY: float("nan")},
        {"unknown": [1]},
    ]

    for each in spellings:
        body = json.dumps({"dataframe_records": [row | each]})
        ours, theirs = (client.post("/invocations", content=body, headers=JSON) for client in (server.http, mlflows))
        assert ours.status_code == theirs.status_code == 200, (each, ours.text, theirs.text)
        assert ours.json() == theirs.json(), each


def test_no_rows_give_no_predictions(server: Running, mlflows: TestClient) -> None:
    for head, body in (
        (JSON, json.dumps({"dataframe_split": pd.DataFrame(customers(1)).head(0).to_dict(orient="split")})),
        (CSV, pd.DataFrame(customers(1)).head(0).to_csv(index=False)),
    ):
        ours, theirs = (client.post("/invocations", content=body, headers=head) for client in (server.http, mlflows))
        assert ours.json() == theirs.json() == {"predictions": []}


def test_an_invalid_body_is_refused_in_the_mlflow_error_format(server: Running) -> None:
    row = customers(1, seed=2)[0]
    short = {name: value for name, value in row.items() if name != "language"}
    wrong: dict[str, tuple[str, Any]] = {
        "language: Field required": ("dataframe_records", [short]),
        "language: Input should be": ("instances", [row | {"language": "Other"}]),
        "member_months: Input should be a valid integer": ("inputs", [row | {"member_months": 5.5}]),
        "member_months: Input should be less": ("inputs", [row | {"member_months": 10**30}]),
        "monthly_fee: Input should be a valid number": ("inputs", [row | {"monthly_fee": float("nan")}]),
        "monthly_fee: Input should be a finite": ("inputs", [row | {"monthly_fee": float("inf")}]),
        "no_locker_no_second": ("inputs", [row | {"has_locker": False, "second_locker": "Yes"}]),
        "[0].language: Field": ("inputs", {}),
        "not all as many": ("inputs", {"language": ["Dutch"], "member_months": [1, 2]}),
        "have not all": ("instances", {"language": ["Dutch"], "member_months": 1}),
        "not as many values": ("dataframe_split", {"columns": [*row], "data": [["Dutch", 1]]}),
        "columns: is_duo is missing": (
            "dataframe_split",
            {"columns": [*short.keys() - {"is_duo"}, "language"], "data": []},
        ),
        "given twice": ("dataframe_split", {"columns": ["language", "language"], "data": [["Dutch", "Dutch"]]}),
        "columns: Field required": ("dataframe_split", {"data": [[1]]}),
        "dataframe_records": ("dataframe_records", [[1]]),
    }

    for message, (form, content) in wrong.items():
        answer = server.http.post("/invocations", content=json.dumps({form: content}), headers=JSON)
        assert answer.status_code == 400, (message, answer.text)
        assert answer.json()["error_code"] == "BAD_REQUEST"
        assert message in answer.json()["message"]


def test_an_unreadable_body_is_a_client_error(server: Running) -> None:
    row = customers(1)[0]
    malformed = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"inputs":' * 5000,
        b"1" * 5000,
        b'{"inputs": "\\ud800"}',
    ]
    malformed += [json.dumps(each).encode() for each in ({"inputs": [row], "instances": [row]}, {"inputs": [row], "params": 1})]
    for body in malformed:
        assert server.http.post("/invocations", content=body, headers=JSON).status_code == 400, body[:40]
    for body in (b"", b"\xff", b"{}", b"language\nMale\n", b"a,b\n1,2,3\n", b'"' + b"x" * 200_000, b"a\nb\n" + b"x" * 200_000):
        assert server.http.post("/invocations", content=body, headers=CSV).status_code == 400, body[:40]
    for kind in ("text/xml", "text/csv; charset=latin-1", "application/json; x=y"):
        assert server.http.post("/invocations", content=b"{}", headers={"Content-Type": kind}).status_code == 415, kind


def test_a_large_body_of_invalid_rows_is_refused_quickly(server: Running) -> None:
    for wrong in (b'{"inputs": [' + b"{}," * 340_000 + b"{}]}", b'{"inputs": [' + b"1," * 500_000 + b"1]}"):
        assert server.http.post("/invocations", content=wrong, headers=JSON, timeout=10).status_code in (400, 413)
    many = pd.DataFrame(customers(1) * 1001)
    for head, body in ((CSV, many.to_csv(index=False)), (JSON, json.dumps({"inputs": many.to_dict(orient="list")}))):
        assert server.http.post("/invocations", content=body, headers=head).status_code == 413


def test_a_server_without_a_version_refuses_to_score(serve: Serve) -> None:
    server = serve().alive()

    assert server.http.get("/ping").status_code == 503
    assert server.http.post("/invocations", json={"inputs": customers(1)}).status_code == 503


@pytest.mark.reported
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps({"dataframe_split": {"columns": ["commitment"], "data": SECRET}}), "application/json"),
        (json.dumps({"dataframe_records": SECRET}), "application/json"),
        (f'{{"dataframe_records": ["{SECRET}]', "application/json"),
        (pd.DataFrame([customers(1)[0] | {"monthly_fee": SECRET}]).to_csv(index=False), "text/csv"),
    ],
)
def test_a_refused_table_and_its_tracebacks_quote_no_value(body: str, content_type: str) -> None:
    with pytest.raises(Invalid) as caught:
        frames.rows_of(body.encode(), content_type, 10)

    assert SECRET not in "".join(traceback.format_exception(caught.value))
