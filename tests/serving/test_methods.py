"""HEAD and OPTIONS on every route, and the order of responses to pipelined requests."""

import json
import random
from typing import Any

import pytest

from raw_http import connected, fetch, request
from served import KEY, Releases, Running, customers

pytestmark = pytest.mark.both_ways

GETS = ("/", "/model", "/healthz", "/health", "/readyz", "/metrics", "/docs", "/openapi.json", "/ping", "/version", "/v2")
POSTS = ("/predict", "/predict/by-id", "/explain", "/outcomes", "/invocations", "/hooks/mlflow", "/v2/models/churn/infer")
CHANGING = {"date", "content-length"}
"""Headers that may differ between two answers: a page or the metrics may have changed."""


@pytest.mark.parametrize("path", GETS)
def test_head_has_the_status_and_headers_of_get_and_no_body(path: str, server: Running) -> None:
    with connected(server) as client:
        client.send(request("GET", path))
        got = client.answer()
        client.send(request("HEAD", path) + request("GET", "/healthz"))
        head, after = client.answer("HEAD"), client.answer()

    assert (head.status, after.status) == (got.status, 200)
    assert head.headers.keys() == got.headers.keys()
    assert int(head.headers["content-length"]) > 0
    assert {**head.headers, **dict.fromkeys(CHANGING, "")} == {**got.headers, **dict.fromkeys(CHANGING, "")}


@pytest.mark.parametrize("path", POSTS)
def test_head_of_a_post_route_is_refused_with_the_methods(path: str, server: Running) -> None:
    head = fetch(server, request("HEAD", path), "HEAD")

    assert head.status == 405
    assert head.headers["allow"] == "OPTIONS, POST"


def test_a_refused_head_has_no_body(locked: Running) -> None:
    with connected(locked) as client:
        client.send(request("HEAD", "/model") + request("HEAD", "/nowhere", f"X-API-Key: {KEY}") + request("GET", "/healthz"))
        unauthorized, unknown, alive = client.answer("HEAD"), client.answer("HEAD"), client.answer()
        client.send(request("HEAD", "/healthz", "X: " + "x" * 20_000))
        large, is_last = client.answer("HEAD"), client.is_at_end()

    assert [answer.status for answer in (unauthorized, unknown, alive, large)] == [401, 404, 200, 431]
    assert int(unauthorized.headers["content-length"]) > 0
    assert is_last


def test_head_is_refused_without_a_body_while_no_version_is_ready(releases: Releases, serve: Any) -> None:
    server = serve().alive()

    with connected(server) as client:
        client.send(request("HEAD", "/readyz") + request("GET", "/healthz"))

        assert [client.answer("HEAD").status, client.answer().status] == [503, 200]


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        *((path, "GET, HEAD, OPTIONS") for path in (*GETS, "/static-offline-docs/swagger-ui.css")),
        *((path, "OPTIONS, POST") for path in POSTS),
        ("/page/score", "GET, HEAD, OPTIONS, POST"),
        ("*", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_options_names_the_methods_and_needs_no_key(path: str, allow: str, locked: Running) -> None:
    with connected(locked) as client:
        client.send(request("OPTIONS", path) + request("GET", "/healthz"))
        options, after = client.answer("OPTIONS"), client.answer()

    assert (options.status, options.headers["allow"], after.status) == (204, allow, 200)
    assert not options.headers.keys() & {"content-length", "transfer-encoding", "access-control-allow-origin"}


def test_a_wrong_method_is_refused_with_every_method_of_the_route(server: Running) -> None:
    for path, allow in (
        ("/predict", "OPTIONS, POST"),
        ("/page/score", "GET, HEAD, OPTIONS, POST"),
        ("/healthz", "GET, HEAD, OPTIONS"),
    ):
        refused = fetch(server, request("DELETE", path))

        assert (path, refused.status, refused.headers["allow"]) == (path, 405, allow)


def test_pipelined_requests_of_any_methods_are_answered_in_order(server: Running) -> None:
    """Each answer is known by its status, and a prediction by its customer."""
    one = customers(1)[0]

    def sent(kind: str, name: str) -> tuple[bytes, str, int]:
        match kind:
            case "predict":
                body = json.dumps({"customers": [one | {"customer_id": name}]}).encode()
                return request("POST", "/predict", body=body), "POST", 200
            case "bad":
                return request("POST", "/predict", body=b"{"), "POST", 422
            case "head of a post":
                return request("HEAD", "/predict"), "HEAD", 405
            case "unknown":
                return request("GET", f"/{name}"), "GET", 404
            case _:
                return request(kind, "/model"), kind, 204 if kind == "OPTIONS" else 200

    at = random.Random(7)
    with connected(server) as client:
        for _ in range(15):
            kinds = at.choices(("HEAD", "OPTIONS", "GET", "predict", "unknown", "bad", "head of a post"), k=40)
            named = [(kind, f"customer-{at.getrandbits(40)}") for kind in kinds]
            client.send(b"".join(sent(kind, name)[0] for kind, name in named))
            for kind, name in named:
                _, method, status = sent(kind, name)
                answer = client.answer(method)
                assert (kind, answer.status) == (kind, status)
                if kind == "predict":
                    assert answer.json["predictions"][0]["customer_id"] == name


def test_thousands_of_pipelined_requests_are_answered(server: Running) -> None:
    with connected(server) as client:
        client.send(request("HEAD", "/healthz") * 3000 + request("GET", "/model"))

        assert {client.answer("HEAD").status for _ in range(3000)} == {200}
        assert client.answer().status == 200


def test_invalid_http_is_refused_after_the_earlier_responses(server: Running) -> None:
    with connected(server) as client:
        client.send(request("GET", "/model") + request("HEAD", "/model") + b"NONSENSE\r\n\r\n" + request("GET", "/healthz"))

        assert [client.answer().status, client.answer("HEAD").status, client.answer().status] == [200, 200, 400]
        assert client.is_at_end()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_an_unused_body_is_dropped(method: str, server: Running) -> None:
    with connected(server) as client:
        client.send(request(method, "/healthz", body=bytes(1_000_000)) + request("GET", "/model"))

        assert client.answer(method).status == (405 if method == "DELETE" else 200)
        assert client.answer().status == 200


def test_a_not_modified_response_has_no_body(server: Running) -> None:
    path = "/static-offline-docs/swagger-ui.css"
    tag = fetch(server, request("HEAD", path), "HEAD").headers["etag"]

    with connected(server) as client:
        client.send(request("GET", path, f"If-None-Match: {tag}") + request("GET", "/healthz"))

        assert [client.answer().status, client.answer().status] == [304, 200]
