"""Ambiguous requests, upgrades to other protocols, and keys in unusual places."""

import json

import pytest

from raw_http import connected, fetch, request
from served import KEY, Running, customers

pytestmark = pytest.mark.both_ways

H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA")


def prediction(n: int = 1) -> bytes:
    return json.dumps({"customers": customers(n)}).encode()


def chunked(body: bytes, *trailer: str) -> bytes:
    return b"%x\r\n%b\r\n0\r\n" % (len(body), body) + "".join(f"{line}\r\n" for line in trailer).encode() + b"\r\n"


@pytest.mark.reported
@pytest.mark.parametrize("n", [1, 100], ids=["one customer", "a body of several pieces"])
def test_an_h2c_upgrade_is_ignored_and_the_body_is_scored(n: int, server: Running) -> None:
    with connected(server) as client:
        for _ in range(2):
            client.send(request("POST", "/predict", *H2C, body=prediction(n)))
            answer = client.answer()
            assert answer.status == 200
            assert len(answer.json["predictions"]) == n
            assert "upgrade" not in answer.headers


def test_the_body_of_an_upgrade_is_never_read_as_a_request(server: Running) -> None:
    hidden = request("GET", "/model")

    with connected(server) as client:
        client.send(request("POST", "/predict", *H2C, body=hidden) + request("GET", "/healthz"))

        assert [client.answer().status, client.answer().json] == [422, {"status": "alive"}]


def test_a_fragmented_upgrade_request_is_answered(server: Running) -> None:
    whole = request("POST", "/predict", *H2C, "Transfer-Encoding: chunked", body=chunked(prediction()))

    with connected(server) as client:
        for start in range(0, len(whole), 50):
            client.send(whole[start : start + 50])

        assert client.answer().status == 200


def test_a_websocket_is_refused(server: Running) -> None:
    wish = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )

    for path in ("/", "/predict", "/healthz", "/nowhere"):
        refused = fetch(server, request("GET", path, *wish))

        assert (path, refused.status, refused.headers["connection"]) == (path, 400, "close")
        assert "WebSocket" in refused.json["detail"]


@pytest.mark.reported
def test_a_key_in_a_trailer_is_not_accepted(locked: Running) -> None:
    body = chunked(prediction(), f"X-API-Key: {KEY}", f"Authorization: Bearer {KEY}")

    for path in ("/predict", "/explain", "/model"):
        refused = fetch(locked, request("POST", path, "Transfer-Encoding: chunked", body=body))

        assert (path, refused.status) == (path, 401)


def test_trailers_are_ignored(server: Running) -> None:
    body = chunked(prediction(), "Content-Type: text/plain", "Content-Encoding: gzip", "X-Checksum: 1")

    with connected(server) as client:
        client.send(request("POST", "/predict", "Transfer-Encoding: chunked", body=body) + request("GET", "/healthz"))

        assert [client.answer().status, client.answer().status] == [200, 200]


@pytest.mark.reported
def test_differing_keys_in_a_request_are_refused(locked: Running) -> None:
    known, unknown = (
        (f"X-API-Key: {KEY}", f"Authorization: Bearer {KEY}"),
        ("X-API-Key: no", "Authorization: Bearer no", "X-API-Key: é"),
    )

    for right in known:
        for wrong in unknown:
            for fields in ((right, wrong), (wrong, right)):
                for path in ("/predict", "/explain"):
                    refused = fetch(locked, request("POST", path, *fields, body=prediction()))

                    assert (fields, path, refused.status) == (fields, path, 401)
                    assert refused.json["detail"] != fetch(locked, request("POST", path, body=prediction())).json["detail"]
    assert fetch(locked, request("POST", "/predict", *known, body=prediction())).status == 200
    assert fetch(locked, request("POST", "/predict", known[0], "Authorization: Digest x", body=prediction())).status == 200


@pytest.mark.reported
@pytest.mark.parametrize("coding", ["gzip", "br", "x-unknown", "identity, gzip"])
def test_a_compressed_body_is_refused_with_what_to_do(coding: str, server: Running) -> None:
    for path in ("/predict", "/predict/by-id", "/explain", "/outcomes", "/invocations", "/v2/models/churn/infer"):
        refused = fetch(server, request("POST", path, f"Content-Encoding: {coding}", body=b"\x1f\x8b\x08\x00"))

        assert (path, refused.status) == (path, 415)
        assert b"uncompressed" in refused.body
    split = request("POST", "/predict", "Content-Encoding: identity", f"Content-Encoding: {coding}", body=prediction())
    assert fetch(server, split).status == 415
    assert fetch(server, request("POST", "/predict", "Content-Encoding: identity", body=prediction())).status == 200


AMBIGUOUS = {
    "two lengths": ("Content-Length: 3", "Content-Length: 4"),
    "the same length twice": ("Content-Length: 3", "Content-Length: 3"),
    "a list of lengths": ("Content-Length: 3, 3",),
    "a length with a sign": ("Content-Length: +3",),
    "a length and chunks": ("Content-Length: 3", "Transfer-Encoding: chunked"),
    "chunks and a length": ("Transfer-Encoding: chunked", "Content-Length: 3"),
    "chunks twice": ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "a coding before chunks": ("Transfer-Encoding: gzip, chunked",),
    "a coding after chunks": ("Transfer-Encoding: chunked, identity",),
    "an unknown coding": ("Transfer-Encoding: xchunked",),
    "a blank before the colon": ("Transfer-Encoding : chunked",),
    "a folded line": ("X: a\r\n b",),
    "a line that ends in LF": ("X: a\nY: b",),
    "two hosts": ("Host: elsewhere",),
    "two content types": ("Content-Type: application/json", "Content-Type: text/plain"),
    "an unknown expectation": ("Expect: more",),
}


@pytest.mark.parametrize("fields", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_closes_the_connection(fields: tuple[str, ...], locked: Running) -> None:
    hidden = request("GET", "/healthz")

    with connected(locked) as client:
        client.send(request("POST", "/predict", f"X-API-Key: {KEY}", *fields) + b"3\r\nabc\r\n0\r\n\r\n" + hidden)
        refused = client.answer()

        assert refused.status in {400, 417, 501}
        assert refused.headers["connection"] == "close"
        assert refused.json["detail"]
        assert client.is_at_end(), "what follows is not read as a request"


def test_chunked_encoding_in_http_1_0_is_refused(server: Running) -> None:
    sent = request("POST", "/predict", "Transfer-Encoding: chunked", body=chunked(prediction()), version="1.0")

    assert fetch(server, sent).status == 400


def test_a_request_without_a_host_is_refused(server: Running) -> None:
    assert fetch(server, b"GET /healthz HTTP/1.1\r\n\r\n").status == 400
    assert fetch(server, b"GET /healthz HTTP/1.0\r\n\r\n").status == 200


@pytest.mark.parametrize(("version", "status"), [("2.0", 505), ("0.9", 505), ("1.2", 400), ("1.0", 200)])
def test_an_unsupported_http_version_is_refused(version: str, status: int, server: Running) -> None:
    assert fetch(server, request("GET", "/healthz", version=version)).status == status


TARGETS = {
    "/predict": 401,
    "http://elsewhere/predict": 401,
    "HTTP://user@elsewhere:1/predict?x=/healthz": 401,
    "/%70redict": 401,
    "//predict": 401,
    "//healthz": 401,
    "/healthz/": 401,
    "/healthz%2f": 401,
    "/healthz/../predict": 401,
    "/healthz%00": 400,
    "/predict?/healthz": 401,
    "/predict#/healthz": 401,
    "/HEALTHZ": 401,
    "http://elsewhere": 401,
    "http://elsewhere?/healthz": 401,
    "/%68ealthz": 405,
    "http://elsewhere/healthz": 405,
    "*": 400,
    "predict": 400,
    "ftp://elsewhere/predict": 400,
    "/pr edict": 400,
    "/\xff": 400,
}


@pytest.mark.parametrize("target", TARGETS)
def test_every_form_of_a_target_gets_the_same_key_check(target: str, locked: Running) -> None:
    assert fetch(locked, request("POST", target, body=b"{}")).status == TARGETS[target]


def test_an_absolute_target_is_handled_as_its_path(server: Running) -> None:
    for target in ("http://elsewhere/predict", "/%70redict", "/predict?a=b"):
        assert fetch(server, request("POST", target, body=prediction())).status == 200
    for target, status in (("//predict", 404), ("http://elsewhere", 405)):
        assert fetch(server, request("POST", target, body=prediction())).status == status


def test_connect_is_refused(server: Running) -> None:
    assert fetch(server, b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n").status == 501


def test_expect_100_continue_gets_100_and_then_the_response(server: Running) -> None:
    body = prediction()
    whole = request("POST", "/predict", "Expect: 100-continue", body=body)

    with connected(server) as client:
        for _ in range(2):
            client.send(whole[: -len(body)])
            assert client.answer("HEAD").status == 100
            client.send(body)
            answer = client.answer()
            assert answer.status == 200
            assert "connection" not in answer.headers
        client.send(whole)
        assert client.answer().status == 200, "its body came with it"


def test_a_request_refused_before_its_body_closes_the_connection(locked: Running) -> None:
    whole = request("POST", "/predict", "Expect: 100-continue", body=request("GET", "/healthz"))

    with connected(locked) as client:
        client.send(whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        refused = client.answer()

        assert (refused.status, refused.headers["connection"]) == (401, "close")
        assert client.is_at_end()


def test_http_1_0_gets_no_100_continue(server: Running) -> None:
    assert fetch(server, request("POST", "/predict", "Expect: 100-continue", body=prediction(), version="1.0")).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_connection_close_closes_after_the_response(method: str, server: Running) -> None:
    with connected(server) as client:
        client.send(request(method, "/healthz", "Connection: close"))

        assert client.answer(method).headers["connection"] == "close"
        assert client.is_at_end()
