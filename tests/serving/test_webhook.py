"""A signed webhook of MLflow makes the server poll at once."""

from served import Releases, Serve
from swaps import BODY, FOREVER, SECRET, hook, signed


def test_a_signed_webhook_triggers_an_immediate_poll(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = serve(poll_s=FOREVER, webhook_secret=SECRET).ready()
    second = releases.release(seed=1)

    answer = hook(server)

    assert answer.status_code == 202
    server.wait(lambda: server.version() == second, seconds=10)


def test_an_unsigned_webhook_is_refused(releases: Releases, serve: Serve) -> None:
    first = releases.release(seed=0)
    server = serve(poll_s=FOREVER, webhook_secret=SECRET).ready()
    releases.release(seed=1)
    right = signed(BODY)

    attempts = [
        server.http.post("/hooks/mlflow", content=BODY),
        hook(server, "another"),
        hook(server, ""),
        server.http.post("/hooks/mlflow", content=BODY + b" ", headers=right),
        server.http.post("/hooks/mlflow", content=BODY, headers=right | {"x-mlflow-timestamp": "1"}),
        server.http.post("/hooks/mlflow", content=BODY, headers=right | {"x-mlflow-signature": "v1,"}),
    ]

    assert [each.status_code for each in attempts] == [401] * len(attempts)
    assert server.version() == first


def test_webhooks_are_refused_without_a_secret(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = serve().ready()

    assert hook(server, "").status_code == 401
