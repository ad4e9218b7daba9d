"""The Open Inference Protocol, tested with Triton's own client."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from churn.contract import BY_NAME, ENTITY, RAW_FEATURES, Category, Flag, Integer, Text
from served import Releases, Running, Serve, customers

LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=30) as made:
        yield made


def column(given: list[dict[str, Any]], name: str) -> tuple[str, Any]:
    """A column's datatype and values (n,)."""
    values = [each[name] for each in given]
    match BY_NAME[name].kind:
        case Category() | Text():
            return "BYTES", np.array([each.encode() for each in values], dtype=object)
        case Flag():
            return "BOOL", np.array(values, dtype=bool)
        case Integer():
            return "INT64", np.array(values, dtype=np.int64)
        case _:
            return "FP64", np.array(values, dtype=np.float64)


def inputs(given: list[dict[str, Any]], *, binary: bool = True, wide: bool = False) -> list[Any]:
    """One tensor per column, `wide` ones of shape [n, 1]."""
    made = []
    for name in (ENTITY, *(each.name for each in RAW_FEATURES)):
        kind, values = column(given, name)
        shape = [len(values), 1] if wide else [len(values)]
        tensor = triton.InferInput(name, shape, kind)
        tensor.set_data_from_numpy(values.reshape(shape), binary_data=binary)
        made.append(tensor)
    return made


def request(given: list[dict[str, Any]], **overrides: Any) -> dict[str, Any]:
    """A request in JSON; an override replaces keys of the tensor of that name, or removes the tensor if it is None."""
    tensors = []
    for name in (each.name for each in RAW_FEATURES):
        kind, _ = column(given, name)
        tensor = {"name": name, "shape": [len(given)], "datatype": kind, "data": [each[name] for each in given]}
        if (change := overrides.get(name, {})) is not None:
            tensors.append(tensor | change)
    return {"inputs": tensors}


def packed(*, size: int, data: bytes, name: str, kind: str) -> tuple[bytes, bytes]:
    """A customer in JSON with one tensor in binary: the JSON, and what follows it."""
    body = request(customers(1))
    tensor = next(each for each in body["inputs"] if each["name"] == name)
    del tensor["data"]
    tensor |= {"datatype": kind, "parameters": {"binary_data_size": size}}
    return json.dumps(body).encode(), data


def predictions(server: Running) -> float:
    """How many it has made."""
    return sum(server.metric(f'churn_predictions_total{{churn="{each}"}}') for each in ("true", "false"))


def test_the_triton_client_finds_a_live_and_ready_model(server: Running, client: Any) -> None:
    version = server.version()

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("churn")
    assert client.is_model_ready("churn", version)
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("churn", "99")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]


def test_the_metadata_matches_the_contract(server: Running, client: Any) -> None:
    found = client.get_model_metadata("churn", server.version())

    assert found == client.get_model_metadata("churn")
    assert (found["name"], found["versions"], found["platform"]) == ("churn", [server.version()], "onnxruntime_onnx")
    assert [each["name"] for each in found["inputs"]] == [ENTITY, *(each.name for each in RAW_FEATURES)]
    kinds = {each["name"]: each["datatype"] for each in found["inputs"]}
    assert kinds == {name: column(customers(1), name)[0] for name in kinds}
    assert [each["name"] for each in found["outputs"]] == ["churn_probability", "churn", "risk"]


@pytest.mark.parametrize("binary", [True, False])
def test_a_triton_client_score_equals_scikit_learn(
    released: Releases,
    client: Any,
    binary: bool,
) -> None:
    given = [*customers(20), *customers(1, member_months=0, total_fees=float("nan"))]

    for wide in (False, True):
        answer = client.infer("churn", inputs(given, binary=binary, wide=wide), request_id="mine", model_version="1")
        np.testing.assert_allclose(answer.as_numpy("churn_probability"), released.probabilities("1", given), atol=1e-6)
        assert answer.get_response()["id"] == "mine"
        assert answer.get_response()["model_version"] == "1"


def test_outputs_have_the_requested_names_and_encoding(server: Running, client: Any) -> None:
    given = customers(20)
    expected = server.predict(given).json()["predictions"]

    for binary in (True, False):
        names = ["risk", "churn", "churn_probability"]
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        answer = client.infer("churn", inputs(given), outputs=outputs)
        assert [each["name"] for each in answer.get_response()["outputs"]] == names
        assert answer.as_numpy("churn").tolist() == [each["churn"] for each in expected]
        texts = [each.decode() if isinstance(each, bytes) else each for each in answer.as_numpy("risk")]
        assert texts == [each["risk"] for each in expected]
        assert answer.as_numpy("churn_probability").tolist() == [each["churn_probability"] for each in expected]

    plain = server.http.post("/v2/models/churn/infer", json=request(given)).json()
    assert [each["name"] for each in plain["outputs"]] == ["churn_probability"]


@pytest.mark.reported
def test_a_request_with_every_optional_field_null_is_scored(server: Running) -> None:
    one = customers(1)
    plain = request(one)
    nulls = {"id": None, "parameters": None, "outputs": None, "model_name": None, "model_version": None}
    tensors = [each | {"parameters": None} for each in plain["inputs"]]
    named = {"outputs": [{"name": "risk", "parameters": None, "datatype": None, "shape": None}]}

    found = server.http.post("/v2/models/churn/infer", json=nulls | {"inputs": tensors})
    risk = server.http.post("/v2/models/churn/infer", json=nulls | {"inputs": tensors} | named)

    assert (found.status_code, risk.status_code) == (200, 200)
    assert found.json()["outputs"] == server.http.post("/v2/models/churn/infer", json=plain).json()["outputs"]
    assert "id" not in found.json()
    assert risk.json()["outputs"][0]["data"] == [server.predict(one).json()["predictions"][0]["risk"]]


@pytest.mark.reported
@pytest.mark.parametrize(
    "optional",
    [
        {"parameters": {}},
        {"parameters": {"binary_data_output": None}},
        {"parameters": {"binary_data_output": False, "content_type": None, "headers": None, "sequence_id": 0}},
        {"outputs": []},
        {"outputs": [{"name": "churn_probability"}]},
        {"outputs": [{"name": "churn_probability", "parameters": {}}]},
        {"outputs": [{"name": "churn_probability", "parameters": {"binary_data": None}}]},
        {"outputs": [{"name": "churn_probability", "parameters": {"binary_data": False}}], "parameters": None},
    ],
)
def test_empty_optional_fields_equal_absent_ones(optional: dict[str, Any], server: Running) -> None:
    plain = request(customers(1))
    tensors = [each | {"parameters": {"binary_data_size": None, "content_type": None}} for each in plain["inputs"]]

    found = server.http.post("/v2/models/churn/infer", json={"inputs": tensors} | optional)

    assert found.json() == server.http.post("/v2/models/churn/infer", json=plain).json()


@pytest.mark.reported
def test_an_output_without_a_binary_flag_uses_that_of_the_request(server: Running) -> None:
    plain = request(customers(2)) | {"parameters": {"binary_data_output": True}}

    for flags in ({}, {"parameters": None}, {"parameters": {"binary_data": None}}):
        found = server.http.post("/v2/models/churn/infer", json=plain | {"outputs": [{"name": "churn_probability"} | flags]})

        assert found.headers["content-type"] == "application/octet-stream"
        assert len(found.content) - int(found.headers[LENGTH]) == 2 * 8


def test_narrower_number_types_are_accepted(released: Releases, client: Any) -> None:
    given = customers(5)
    tensors = {each.name(): each for each in inputs(given)}
    for name, kind, dtype in (("member_months", "INT16", np.int16), ("monthly_fee", "FP32", np.float32)):
        tensors[name] = triton.InferInput(name, [5, 1], kind)
        tensors[name].set_data_from_numpy(np.array([[each[name]] for each in given], dtype=dtype))

    answer = client.infer("churn", list(tensors.values()))

    np.testing.assert_allclose(answer.as_numpy("churn_probability"), released.probabilities("1", given), atol=1e-6)


def test_another_model_or_version_is_not_found(server: Running, client: Any) -> None:
    scored = predictions(server)

    for name, version in (("other", ""), ("churn", "99")):
        for call, *more in ((client.infer, inputs(customers(1))), (client.get_model_metadata,)):
            with pytest.raises(InferenceServerException) as caught:
                call(name, *more, version)
            assert caught.value.status() == "404"
            assert "served is" in caught.value.message()
    assert predictions(server) == scored


def test_a_request_with_inconsistent_tensors_is_refused(server: Running) -> None:
    one = customers(1)
    wrong = {
        "another datatype": request(one, member_months={"datatype": "BYTES"}),
        "a text for a number": request(one, member_months={"data": ["1"]}),
        "a shape that is too large": request(one, language={"shape": [10**12]}),
        "all shapes too large": {"inputs": [each | {"shape": [10**30]} for each in request(one)["inputs"]]},
        "a negative shape": request(one, language={"shape": [-1]}),
        "three dimensions": request(one, language={"shape": [1, 1, 1]}),
        "two columns": request(one, language={"shape": [1, 2]}),
        "no rows": {"inputs": [each | {"shape": [0], "data": []} for each in request(one)["inputs"]]},
        "a missing column": request(one, language=None),
        "an unknown column": request(one, language={"name": "sex"}),
        "a column twice": {"inputs": [*request(one)["inputs"]] * 2},
        "an unknown value": request(one, language={"data": ["Other"]}),
        "an infinite number": request(one, monthly_fee={"data": [float("inf")]}),
        "a null": request(one, monthly_fee={"data": [None]}),
        "a list": request(one, monthly_fee={"data": [[1.0]]}),
        "a contradiction": request(one, has_locker={"data": [False]}, second_locker={"data": ["Yes"]}),
        "no data": request(one, language={"data": None}),
        "an unknown output": request(one) | {"outputs": [{"name": "other"}]},
        "an output twice": request(one) | {"outputs": [{"name": "risk"}] * 2},
        "no inputs": {"inputs": []},
    }
    for name, body in wrong.items():
        answer = server.http.post("/v2/models/churn/infer", content=json.dumps(body))
        assert answer.status_code == 400, (name, answer.text)
        assert list(answer.json()) == ["error"], name
    for raw in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"inputs":' * 1000, b'{"inputs": [' + b"{}," * 300_000 + b"{}]}"):
        assert server.http.post("/v2/models/churn/infer", content=raw, timeout=10).status_code == 400, raw[:40]
    assert server.http.post("/v2/models/churn/infer", json=request(customers(1001))).status_code in (400, 413)


def test_binary_data_of_a_wrong_length_are_refused(server: Running) -> None:
    def text(value: bytes, size: int | None = None) -> bytes:
        return struct.pack("<I", len(value) if size is None else size) + value

    real: dict[str, Any] = {"name": "monthly_fee", "kind": "FP64"}
    word: dict[str, Any] = {"name": "language", "kind": "BYTES"}
    good = packed(size=10, data=text(b"Danish"), **word)
    wrong = {
        "too few bytes": packed(size=8, data=bytes(7), **real),
        "too many bytes": packed(size=8, data=bytes(9), **real),
        "a size of another type": packed(size=4, data=bytes(4), **real),
        "a size that is negative": packed(size=-1, data=bytes(8), **real),
        "a size beyond everything": packed(size=2**63, data=bytes(8), **real),
        "a length beyond the tensor": packed(size=10, data=text(b"Danish", 2**32 - 1), **word),
        "half a length": packed(size=3, data=b"abc", **word),
        "two texts": packed(size=20, data=text(b"Danish") * 2, **word),
        "no text": packed(size=0, data=b"", **word),
        "a text in no encoding": packed(size=5, data=text(b"\xff"), **word),
    }
    url = "/v2/models/churn/infer"

    assert server.http.post(url, content=b"".join(good), headers={LENGTH: str(len(good[0]))}).status_code == 200
    for name, (head, data) in wrong.items():
        answer = server.http.post(url, content=head + data, headers={LENGTH: str(len(head))})
        assert answer.status_code == 400, (name, answer.text)
        assert list(answer.json()) == ["error"], name
    for length in ("-1", "x", "1.5", "", "9" * 5000, str(sum(map(len, good)) + 1), "0", str(len(good[0]) - 1)):
        assert server.http.post(url, content=b"".join(good), headers={LENGTH: length}).status_code == 400, length[:40]
    assert server.http.post(url, content=b"".join(good), headers={"Content-Encoding": "gzip"}).status_code == 415


def test_a_server_without_a_version_is_live_but_not_ready(serve: Serve) -> None:
    server = serve().alive()

    assert server.http.get("/v2/health/live").json() == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/churn", "/v2/models/churn/ready"):
        assert server.http.get(path).status_code == 503
    answer = server.http.post("/v2/models/churn/infer", json=request(customers(1)))
    assert (answer.status_code, list(answer.json())) == (503, ["error"])
    assert server.http.get("/v2/models/other").status_code == 404
