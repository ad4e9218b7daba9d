"""Memory under attack: invalid requests of every kind keep no memory."""

import hashlib
from urllib.parse import urlsplit

import pytest
from attack import NO_ANSWER, Attack

from served import Releases, Serve, customers

pytestmark = pytest.mark.slow

KEY = "let-me-in"
WARM_UP, REQUESTS = 3000, 6000
"""The benchmark sends 100,000."""


@pytest.mark.reported
@pytest.mark.parametrize("path", ["/healthz", "/predict", "/nowhere", "/model"])
def test_unused_bodies_are_not_kept_in_memory(path: str, releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(api_keys=hashlib.sha256(KEY.encode()).hexdigest()).ready()
    body = bytes(1_000_000)
    statuses = {server.http.post(path, content=body).status_code for _ in range(100)}
    before = server.resident_mb()

    statuses |= {server.http.post(path, content=body, headers={"connection": "close"}).status_code for _ in range(1500)}

    assert statuses == {405 if path == "/healthz" else 401}
    assert server.resident_mb() - before < 20


def test_memory_stays_flat_under_bad_requests_of_every_kind(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(api_keys=hashlib.sha256(KEY.encode()).hexdigest())
    server.http.headers["x-api-key"] = KEY
    server.ready()
    attack = Attack(int(urlsplit(server.url).port or 0), key=b"X-API-Key: " + KEY.encode() + b"\r\n")
    attack.run(WARM_UP)
    before = server.resident_mb()

    attack.run(REQUESTS)

    assert server.resident_mb() - before < 20
    assert attack.answers.total() == WARM_UP + REQUESTS
    assert {"200", "400", "401", "404", "405", "413", "414", "415", "422", "431"} <= attack.answers.keys()
    assert not attack.answers.keys() & {"500", "502"}
    assert attack.answers[NO_ANSWER] < 0.2 * attack.answers.total()
    assert not [each for each in server.logged() if each["level"] == "ERROR"]
    assert server.predict(customers(1)).status_code == 200
    assert server.metric("churn_http_requests_in_flight") == 0
