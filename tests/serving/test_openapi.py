"""The server matches its OpenAPI document: valid requests are accepted, responses are documented, and no request gets a 500."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from churn.contract import RAW_FEATURES, Category, Flag, Integer, Real
from raw_http import fetch, request
from served import Releases, Running, servers

pytestmark = pytest.mark.slow

EXAMPLES = 25
"""Of each route and of each kind: requests that the document allows, and requests that it does not."""

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
"""Left out: `positive_data_acceptance`, since rows may contradict each other's columns, which JSON Schema cannot say, and
customers may be unknown; `ignored_auth` and `unsupported_method`, which test_security.py tests; `negative_data_rejection` and
`missing_required_header`, which doubt requests that JSON Schema and pydantic read alike only mostly."""


@pytest.fixture(scope="module")
def server(released: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with servers(released, tmp_path_factory.mktemp("server")) as start:
        yield start(store_timeout_s="5").ready()


@pytest.fixture
def document(server: Running) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/openapi.json").json()
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: str(mode.value))
def test_every_route_matches_the_openapi_document_for_any_request(mode: GenerationMode, server: Running) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried, faults = 0, []

    for found in schema.get_all_operations():
        operation = cast(Any, found).ok()

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps_its_word(case: Any) -> None:
            answer = case.call()
            # A 503 that says when to come back is no fault: the online store of this server is not there.
            is_told = answer.status_code == 503 and "retry-after" in answer.headers
            case.validate_response(answer, checks=CHECKS if is_told else [not_a_server_error, *CHECKS])

        try:
            keeps_its_word()
        except Unsatisfiable:
            continue  # a route without parameters has no invalid request
        except BaseExceptionGroup as error:
            faults.append(f"{operation.label}: {[str(each) for each in error.exceptions]}")
        tried += 1

    assert faults == []
    assert tried >= 5
    assert not [each for each in server.logged() if each["level"] == "ERROR"]


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def references(node: Any) -> Iterator[str]:
    """Every `$ref` below the node."""
    match node:
        case dict():
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for each in node.values():
                yield from references(each)
        case list():
            for each in node:
                yield from references(each)


def resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The node, or what it refers to."""
    while "$ref" in node:
        found: Any = document
        for each in node["$ref"].removeprefix("#/").split("/"):
            found = found[each]
        node = found
    return node


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    for each in {*references(document)}:
        assert each.startswith("#/")
        assert resolved(document, {"$ref": each})


def body_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of the route's request."""
    return resolved(document, document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def test_a_request_has_every_raw_column_of_the_contract_with_its_rule(document: dict[str, Any]) -> None:
    customer = resolved(document, body_of(document, "/predict")["properties"]["customers"]["items"])

    assert list(customer["properties"]) == ["customer_id", *(each.name for each in RAW_FEATURES)]
    assert customer["additionalProperties"] is False
    assert customer["required"] == [each.name for each in RAW_FEATURES if each.null_as is None]
    for column in RAW_FEATURES:
        found = customer["properties"][column.name]
        given, *null = found.get("anyOf", [found])
        assert found["description"] == column.description
        assert null == ([] if column.null_as is None else [{"type": "null"}])
        match column.kind:
            case Category(values):
                assert given["enum"] == list(values)
            case Flag():
                assert given["type"] == "boolean"
            case Integer(ge, le):
                assert (given["type"], given.get("minimum"), given.get("maximum")) == ("integer", ge, le)
            case Real(ge, le):
                assert (given["type"], given.get("minimum"), given.get("maximum")) == ("number", ge, le)


def example_of(document: dict[str, Any], node: dict[str, Any]) -> Any:
    """What the document's examples add up to."""
    node = resolved(document, node)
    if examples := node.get("examples"):
        return examples[0]
    match node.get("type"):
        case "object":
            named = node["properties"].items()
            needed = node.get("required", ())
            return {name: example_of(document, each) for name, each in named if name in needed or "examples" in each}
        case "array":
            return [example_of(document, node["items"])]
        case "boolean":
            return True
        case _:
            raise AssertionError(f"no example: {node}")


@pytest.mark.parametrize("path", ["/predict", "/outcomes"])
def test_the_documents_own_examples_are_valid_requests(path: str, server: Running, document: dict[str, Any]) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    given = content["example"] if "example" in content else example_of(document, content["schema"])

    answer = server.http.post(path, json=given)

    assert (answer.status_code, answer.text) == (200, answer.text)


UNREADABLE: dict[int, Any] = {
    400: lambda method, path: request(method, path, "Host: elsewhere"),
    414: lambda method, path: request(method, f"{path}?{'a' * 9000}"),
    417: lambda method, path: request(method, path, "Expect: a-miracle"),
    431: lambda method, path: request(method, path, *(f"X-{number}: 1" for number in range(200))),
    501: lambda method, path: request(method, path, "Transfer-Encoding: gzip"),
    505: lambda method, path: request(method, path, version="2.0"),
}


@pytest.mark.parametrize("status", UNREADABLE)
def test_a_request_refused_before_routing_gets_a_documented_response(
    status: int, server: Running, document: dict[str, Any]
) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answer = fetch(server, UNREADABLE[status](method.upper(), path.format(name="churn", version="1")))

            assert (path, answer.status) == (path, status)
            assert str(status) in operation["responses"]
            assert {*answer.json} == {"detail"}


@pytest.mark.reported
@pytest.mark.parametrize("character", ["%0A", "%00", "%1F", "%7F"])
def test_a_control_character_in_a_name_gets_a_documented_response(
    character: str, server: Running, document: dict[str, Any]
) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "{" in path:
                refused = fetch(server, request(method.upper(), path.format(name=f"churn{character}", version="1")))

                assert (path, refused.status) == (path, 400)
                assert "400" in operation["responses"]


def test_every_refusal_is_documented_with_its_shape(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for answer in [each for one in operations.values() for code, each in one["responses"].items() if code >= "400"]:
            content = answer.get("content", {}).get("application/json")
            assert content, path
            # MLflow's and the inference protocol's errors have shapes of their own.
            for shape in content["schema"].get("anyOf", [content["schema"]]):
                named = {*resolved(document, shape)["properties"]}
                assert named in ({"detail"}, {"error"}, {"error_code", "message"}), path
