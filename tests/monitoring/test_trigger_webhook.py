"""A retraining that another system runs, on a real HTTP server."""

import logging
import socket
from pathlib import Path

import pytest

from churn.errors import MonitorError
from churn.settings import Monitoring
from http_server import HttpServer, ReceivedRequest, Reply
from monitoring import web
from monitoring.triggers.trigger import open_trigger
from monitoring.triggers.webhook import Form, Webhook

NAME = "retrain-v3-20261123t030000z"
TOKEN = "ghp_0123456789abcdef"
EVIDENCE = {"psi": {"member_months": 0.31}, "rows": 812}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "WAIT_S", 0)


def always(reply: Reply) -> HttpServer:
    return HttpServer(lambda request: reply)


def in_turn(*replies: Reply) -> HttpServer:
    left = list(replies)
    return HttpServer(lambda request: left.pop(0))


@pytest.mark.parametrize(
    ("form", "path", "body"),
    [
        ("plain", "/hook", {"name": NAME, "evidence": EVIDENCE}),
        (
            "github",
            "/repos/o/r/dispatches",
            {"event_type": "churn-retrain", "client_payload": {"name": NAME, "evidence": EVIDENCE}},
        ),
        ("airflow", "/api/v1/dags/d/dagRuns", {"dag_run_id": NAME, "conf": {"name": NAME, "evidence": EVIDENCE}}),
        (
            "airflow",
            "/api/v2/dags/d/dagRuns",
            {"dag_run_id": NAME, "conf": {"name": NAME, "evidence": EVIDENCE}, "logical_date": None},
        ),
    ],
)
def test_each_form_has_the_body_of_its_receiver(form: Form, path: str, body: object) -> None:
    with always(Reply(204)) as server:
        trigger = open_trigger(Monitoring(trigger="webhook", trigger_url=server.url + path, trigger_form=form))

        trigger.start(NAME, EVIDENCE)

        (request,) = server.received
    assert (request.method, request.path, request.json()) == ("POST", path, body)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == NAME
    assert "authorization" not in request.headers
    assert trigger.status(NAME) == "unknown"


def test_the_token_is_sent_stripped_and_instead_of_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with always(Reply(204)) as server:
        open_trigger(Monitoring(trigger="webhook", trigger_url=server.url, trigger_token=f"{TOKEN}\n")).start(NAME, EVIDENCE)

        assert server.received[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_credentials_in_the_url_are_sent_and_not_shown() -> None:
    with always(Reply(401)) as server, pytest.raises(MonitorError) as caught:
        Webhook(server.url.replace("//", "//user:s3cret@") + "/hook?sig=s3cret").start(NAME, EVIDENCE)

    assert server.received[0].headers["authorization"].startswith("Basic ")
    assert f"{server.url}/hook: answered 401" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_run_that_exists_in_airflow_counts_as_started() -> None:
    with always(Reply.json(409, {"detail": "DAGRun already exists"})) as server:
        Webhook(server.url, "airflow").start(NAME, EVIDENCE)

        with pytest.raises(MonitorError, match="answered 409"):
            Webhook(server.url, "plain").start(NAME, EVIDENCE)


@pytest.mark.parametrize("failure", [Reply(0), Reply(500), Reply(503)])
def test_a_transient_failure_is_retried_with_the_same_key(failure: Reply) -> None:
    with in_turn(failure, failure, Reply(202)) as server:
        Webhook(server.url).start(NAME, EVIDENCE)

        assert [each.headers["idempotency-key"] for each in server.received] == [NAME] * 3
        assert len({each.content for each in server.received}) == 1


@pytest.mark.parametrize(
    ("failure", "reason"), [(Reply(0), "out of reach"), (Reply(502, b"bad gateway"), "answered 502: bad gateway")]
)
def test_a_permanent_failure_ends_after_three_attempts(failure: Reply, reason: str) -> None:
    with always(failure) as server:
        with pytest.raises(MonitorError, match=f"{server.url}: {reason}.*; 3 attempts: check the address and the server"):
            Webhook(server.url).start(NAME, EVIDENCE)

        assert len(server.received) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_retried_and_quotes_the_response(status: int) -> None:
    with always(Reply.json(status, {"message": "Bad\n credentials"})) as server:
        with pytest.raises(MonitorError, match=rf"answered {status}: .*credentials.*; check CHURN_TRIGGER_URL") as caught:
            Webhook(server.url).start(NAME, EVIDENCE)

        assert len(server.received) == 1
    assert "\n" not in str(caught.value)


def test_redirects_are_not_followed() -> None:
    with always(Reply(204)) as other, always(Reply(307, headers=(("Location", other.url),))) as server:
        with pytest.raises(MonitorError, match="answered 307; redirects are not followed"):
            Webhook(server.url, token=TOKEN).start(NAME, EVIDENCE)

        assert (len(server.received), len(other.received)) == (1, 0)


def test_a_response_timeout_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(MonitorError, match=rf"{url}: no answer within 0\.3 s; check the server"):
            Webhook(url).start(NAME, EVIDENCE)

        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # there was one connection only
            silent.accept()


def test_an_unreachable_server_is_an_error_in_one_line() -> None:
    with pytest.raises(
        MonitorError, match=r"http://127\.0\.0\.1:1/x: out of reach: \[Errno 111\] Connection refused; 3 attempts"
    ) as caught:
        Webhook("http://127.0.0.1:1/x?key=s3cret", token=TOKEN).start(NAME, EVIDENCE)

    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["example.org/hook", "ftp://example.org", "http://", "http://[", "http://a:b/"])
def test_an_invalid_url_is_an_error_in_one_line(url: str) -> None:
    with pytest.raises(MonitorError, match=r"cannot be requested \(\w+\); check the address"):
        Webhook(url, token=TOKEN).start(NAME, EVIDENCE)


def echo(request: ReceivedRequest) -> Reply:
    """A server that repeats the token in its response."""
    return Reply(int(request.path[1:]), f"you sent {request.headers['authorization']}".encode())


@pytest.mark.parametrize("status", [204, 302, 403, 500])
def test_no_message_log_or_repr_has_the_token(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    messages = []
    with HttpServer(echo) as server:
        trigger = Webhook(f"{server.url}/{status}", token=TOKEN)
        try:
            trigger.start(NAME, EVIDENCE)
        except MonitorError as error:
            messages += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]

        assert TOKEN in server.received[0].headers["authorization"]
    assert bool(messages) == (status != 204)
    for text in (*messages, caplog.text, repr(trigger)):
        assert TOKEN not in text


@pytest.mark.parametrize("token", ["two\nlines", "naïve", "tab\t"])
def test_a_token_invalid_in_a_header_is_refused_without_showing_it(token: str) -> None:
    with always(Reply(204)) as server:
        with pytest.raises(MonitorError, match="the token has characters that a header does not take") as caught:
            Webhook(server.url, token=token).start(NAME, EVIDENCE)

        assert not server.received
    assert token not in str(caught.value)


def test_evidence_that_is_not_json_is_refused_before_anything_is_sent() -> None:
    with always(Reply(204)) as server:
        with pytest.raises(ValueError, match="JSON compliant"):
            Webhook(server.url).start(NAME, {"auc": float("nan")})

        assert not server.received
