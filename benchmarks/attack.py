"""Bad requests of every kind, as raw bytes: what a server has to refuse without keeping anything of them.

Nothing here is a valid prediction. `Attack(port).run(10_000)` sends that many from a few threads; the same seed sends the same.
"""

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HOST = "127.0.0.1"
CLIENTS = 4
LEFT_OPEN = 20
"""Connections that each client leaves as they are, with half a request in them."""
TIMEOUT_S = 20
NO_ANSWER = "none"

POSTS = ("/predict", "/predict/by-id", "/explain", "/outcomes", "/invocations", "/v2/models/churn/infer", "/page/score")
GETS = ("/", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v2", "/static-offline-docs/none.js")
JSON = b"Content-Type: application/json\r\n"


def _request(method: str, path: str, *fields: bytes, body: bytes | None = None) -> bytes:
    """One request; the body with its length."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return f"{method} {path} HTTP/1.1\r\nHost: attacked\r\n".encode() + b"".join(fields) + length + b"\r\n" + (body or b"")


def _unknown_key(at: random.Random, key: bytes) -> bytes:
    return _request("POST", at.choice(POSTS), b"X-API-Key: %d\r\n" % at.getrandbits(64), JSON, body=b"{}")


def _several_keys(at: random.Random, key: bytes) -> bytes:
    return _request("POST", "/predict", key, b"Authorization: Bearer %d\r\n" % at.getrandbits(64), JSON, body=b"{}")


def _large_body_to_a_route_without(at: random.Random, key: bytes) -> bytes:
    path = at.choice((*GETS, "/nowhere"))
    return _request(at.choice(("POST", "PUT", "GET")), path, key, body=at.randbytes(at.choice((1000, 100_000, 1_000_000))))


def _too_large_body(at: random.Random, key: bytes) -> bytes:
    return _request("POST", at.choice(POSTS), key, JSON, b"Content-Length: %d\r\n" % (2 ** at.randrange(21, 60))) + bytes(200_000)


def _wrong_content_type(at: random.Random, key: bytes) -> bytes:
    kind = b"Content-Type: %b\r\n" % at.choice((b"text/plain", b"application/xml", b"multipart/form-data; boundary=x", b"\xff"))
    return _request("POST", at.choice(POSTS), key, kind, body=at.randbytes(at.randrange(50_000)))


def _compressed_body(at: random.Random, key: bytes) -> bytes:
    coding = b"Content-Encoding: %b\r\n" % at.choice((b"gzip", b"br", b"identity, gzip"))
    return _request("POST", at.choice(POSTS), key, JSON, coding, body=b"\x1f\x8b\x08" + at.randbytes(1000))


def _not_json(at: random.Random, key: bytes) -> bytes:
    bodies = (b"", b"null", b"[" * 50_000, b'{"customers":[' * 5000, b'{"customers": [{"gen', b"\xff\xfe", at.randbytes(70_000))
    return _request("POST", at.choice(POSTS), key, JSON, body=at.choice(bodies))


def _wrong_rows(at: random.Random, key: bytes) -> bytes:
    rows = [{"gender": at.random(), str(at.getrandbits(40)): [None] * 5} for _ in range(at.randrange(1, 300))]
    names = [str(at.getrandbits(90)) for _ in rows]
    body = json.dumps({"customers": rows, "customer_ids": names, "inputs": rows, "outcomes": rows}).encode()
    return _request("POST", at.choice(POSTS), key, JSON, body=body)


def _unknown_route(at: random.Random, key: bytes) -> bytes:
    return _request(
        at.choice(("GET", "HEAD", "POST", "OPTIONS")), f"/{at.getrandbits(64)}/{at.getrandbits(64)}?{at.random()}", key
    )


def _odd_target(at: random.Random, key: bytes) -> bytes:
    targets = (
        "//predict",
        "/predict/",
        "http://elsewhere/predict",
        "*",
        "/%70redict",
        "/predict%00",
        "predict",
        "/\xff",
        "/..%2f",
    )
    return _request(at.choice(("GET", "POST", "OPTIONS")), at.choice(targets), key, JSON, body=b"{}")


def _wrong_method(at: random.Random, key: bytes) -> bytes:
    methods = ("DELETE", "PUT", "PATCH", "TRACE", "PROPFIND", "CONNECT", "NONSENSE", "HEAD", "OPTIONS", "GET")
    return _request(at.choice(methods), at.choice(POSTS), key)


def _chunks(at: random.Random, key: bytes) -> bytes:
    ends = (b"0\r\n\r\n", b"0\r\nX-API-Key: trailer\r\n\r\n", b"zz\r\n", b"5;" + b"x" * 40_000, b"0\r\nX: " + b"y" * 40_000, b"")
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [at.randbytes(at.randrange(1, 9000)) for _ in range(9)])
    return _request("POST", at.choice(POSTS), key, JSON, b"Transfer-Encoding: chunked\r\n") + body + at.choice(ends)


def _large_head(at: random.Random, key: bytes) -> bytes:
    fields = (b"X: " + b"x" * at.choice((10_000, 20_000, 200_000)) + b"\r\n", b"X: y\r\n" * at.choice((90, 200, 5000)))
    return _request("GET", "/healthz" + "x" * at.choice((0, 0, 10_000, 30_000)), key, at.choice(fields))


def _ambiguous_head(at: random.Random, key: bytes) -> bytes:
    fields = (
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Host: another\r\n",
        b"Content-Length: +3\r\n",
        b"X: a\r\n b\r\n",
        b"Expect: more\r\n",
    )
    return _request("POST", "/predict", key, JSON, at.choice(fields)) + b"3\r\nabc\r\n0\r\n\r\n"


def _upgrade(at: random.Random, key: bytes) -> bytes:
    wishes = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n",
    )
    return _request("POST", at.choice(POSTS), key, JSON, at.choice(wishes), body=b"{" * at.randrange(50_000))


def _expectation(at: random.Random, key: bytes) -> bytes:
    return _request("POST", at.choice(POSTS), key, JSON, b"Expect: 100-continue\r\nContent-Length: 100000\r\n")


def _no_http(at: random.Random, key: bytes) -> bytes:
    known = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    )
    return at.choice((*known, at.randbytes(at.randrange(1, 3000)) + b"\r\n\r\n"))


def _sent_ahead(at: random.Random, key: bytes) -> bytes:
    kinds = (_wrong_method, _not_json, _unknown_route, _wrong_rows, _unknown_key)
    return b"".join(at.choice(kinds)(at, key) for _ in range(at.randrange(2, 12)))


def _many_sent_ahead(at: random.Random, key: bytes) -> bytes:
    return _request(at.choice(("GET", "HEAD")), at.choice(GETS), key) * at.randrange(50, 100)


def _half(at: random.Random, key: bytes) -> bytes:
    whole = at.choice((_not_json, _wrong_rows, _large_head, _chunks, _upgrade))(at, key)
    return whole[: at.randrange(len(whole))]


Kind = Callable[[random.Random, bytes], bytes]
ANSWERED: tuple[Kind, ...] = (
    _unknown_key,
    _several_keys,
    _large_body_to_a_route_without,
    _too_large_body,
    _wrong_content_type,
    _compressed_body,
    _not_json,
    _wrong_rows,
    _unknown_route,
    _odd_target,
    _wrong_method,
    _large_head,
    _ambiguous_head,
    _upgrade,
    _expectation,
    _no_http,
    _sent_ahead,
    _many_sent_ahead,
)
LEFT: tuple[Kind, ...] = (_half, _chunks)
"""Requests that may have no end: their clients leave, or stay without a word."""


@dataclass
class Attack:
    """Sends bad requests to a port; `key` is the header line of a key that the server knows, which every second one has."""

    port: int
    key: bytes = b""
    seed: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """How many connections got which status first, or `NO_ANSWER`."""

    def run(self, requests: int) -> None:
        """Send that many, and wait for their answers."""
        self.seed += CLIENTS
        numbers = [requests // CLIENTS + (client < requests % CLIENTS) for client in range(CLIENTS)]
        clients = [
            threading.Thread(target=self._send, args=(random.Random(self.seed + client), number))
            for client, number in enumerate(numbers)
        ]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()

    def _send(self, at: random.Random, requests: int) -> None:
        seen: Counter[str] = Counter()
        open_ones: list[socket.socket] = []
        for kind in self._kinds(at, requests):
            client = socket.create_connection((HOST, self.port), timeout=TIMEOUT_S)
            is_left = kind in LEFT
            seen[_exchange(client, kind(at, self.key if at.random() < 0.5 else b""), waits=not is_left)] += 1
            if is_left and at.random() < 0.5:
                open_ones.append(client)
                if len(open_ones) > LEFT_OPEN:
                    open_ones.pop(0).close()
            else:
                client.close()
        for client in open_ones:
            client.close()
        self.answers.update(seen)

    def _kinds(self, at: random.Random, requests: int) -> Iterator[Kind]:
        for _ in range(requests):
            yield at.choice(ANSWERED + LEFT)


def _exchange(client: socket.socket, data: bytes, *, waits: bool) -> str:
    """Send the bytes; the status of the first answer."""
    try:
        client.sendall(data)
        if not waits:
            return NO_ANSWER
        words = client.recv(65536).split(b" ", 2)
        return words[1].decode() if len(words) > 1 else NO_ANSWER
    except (ConnectionError, TimeoutError):
        return NO_ANSWER
