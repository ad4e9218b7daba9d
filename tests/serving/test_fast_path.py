"""The fast path without a server: how a request ends after an error."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from churn.settings import load_serving
from served import customers
from serving.fast_path.request import FastRequest
from serving.fast_path.wrapper import FastPath
from serving.middleware import HEAVY_BYTES, RequestLimits
from serving.predictor import ResultHandler
from serving.problems import ClientDisconnected, NoModel
from serving.routes import Routes


class Connection:
    """A connection that remembers what was sent; its own transport."""

    def __init__(self) -> None:
        self.transport = self
        self.closed = False
        self.status = 0
        self.sent: Any = None

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        self.status, self.sent = status, json.loads(body)

    def on_response_complete(self) -> None:
        pass


class Served:
    """A fast path whose requests are scored by `submit`."""

    def __init__(self, submit: Callable[[Any, ResultHandler], None], connection: Connection | None = None) -> None:
        self.limits = RequestLimits(None, load_serving(), Routes([]))
        self.connection = connection or Connection()
        self.submit = submit
        self._fast_path = FastPath(self.limits, self)  # type: ignore[arg-type]

    def take(self, body: bytes) -> bool:
        request = FastRequest(self.connection, [])
        request.body = body
        return self._fast_path.routes[b"/predict"](request)

    @property
    def in_flight(self) -> int:
        return self.limits._in_flight


BODY = json.dumps({"customers": customers(1)}).encode()


def test_an_unexpected_error_is_logged_with_500_and_frees_its_slot(caplog: pytest.LogCaptureFixture) -> None:
    def broken(customers: Any, handler: ResultHandler) -> None:
        raise RuntimeError("a bug")

    served = Served(broken)

    with caplog.at_level(logging.ERROR):
        assert served.take(BODY)

    assert served.connection.status == 500
    assert served.connection.sent == {"detail": "the server failed; its log says why"}
    assert "a bug" in caplog.text
    assert served.in_flight == 0


def test_a_response_that_cannot_be_sent_closes_only_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Unwritable(Connection):
        def send(self, status: int, headers: bytes, body: bytes) -> None:
            raise RuntimeError("a bug")

    served = Served(lambda customers, handler: handler.on_result(NoModel()), Unwritable())

    assert served.take(BODY)

    assert served.connection.closed
    assert "an answer could not be sent" in caplog.text
    assert served.in_flight == 0


def test_a_disconnected_client_gets_no_response_and_frees_its_slot() -> None:
    served = Served(lambda customers, handler: handler.on_result(ClientDisconnected()))

    assert served.take(BODY)

    assert not served.connection.status
    assert served.connection.closed
    assert served.in_flight == 0


def test_invalid_or_large_requests_and_draining_use_asgi() -> None:
    served = Served(lambda customers, handler: pytest.fail("was taken"))

    assert not served.take(b'{"customers": []}')
    assert not served.take(b" " * (HEAVY_BYTES + 1))
    served.limits.draining = True
    assert not served.take(BODY)
    assert served.in_flight == 0
