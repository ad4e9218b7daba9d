"""The edge without a server: what happens to a request on the short way when nothing goes as foreseen."""

import json
import logging
from typing import Any

import pytest

from churn.settings import load_serving
from serving.edge import HEAVY_BYTES, Edge
from serving.predictor import ResultHandler
from serving.problems import ClientDisconnected, NoModel
from serving.routes import Routes


class Exchange:
    """A request that came whole; remembers its answer."""

    def __init__(self, body: bytes = b"{}") -> None:
        self.body, self.headers = body, list[tuple[bytes, bytes]]()
        self.response_complete = self.aborted = False
        self.status = 0
        self.said: Any = None

    def is_disconnected(self) -> bool:
        return False

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        self.response_complete = True
        self.status, self.said = status, json.loads(body)

    def abort(self) -> None:
        self.aborted = True


def edge_to(submit: Any) -> Edge:
    return Edge(None, load_serving(), hot={}, short={"/predict": submit}, routes=Routes([]))


def test_an_error_that_nobody_foresaw_is_answered_and_logged_and_gives_its_place_back(caplog: pytest.LogCaptureFixture) -> None:
    def broken(body: bytes, handler: ResultHandler) -> None:
        raise RuntimeError("a bug")

    edge, exchange = edge_to(broken), Exchange()

    with caplog.at_level(logging.ERROR):
        assert edge.short[b"/predict"](exchange)  # type: ignore[arg-type]

    assert exchange.status == 500
    assert exchange.said == {"detail": "the server failed; its log says why"}
    assert "a bug" in caplog.text
    assert edge.in_flight == 0


def test_an_answer_that_cannot_be_sent_ends_its_connection_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Unwritable(Exchange):
        def answer(self, status: int, headers: bytes, body: bytes) -> None:
            raise RuntimeError("a bug")

    edge, exchange = edge_to(lambda body, handler: handler.on_result(NoModel())), Unwritable()

    assert edge.short[b"/predict"](exchange)  # type: ignore[arg-type]

    assert exchange.aborted
    assert "an answer could not be sent" in caplog.text
    assert edge.in_flight == 0


def test_a_client_that_went_away_gets_no_answer_and_gives_its_place_back() -> None:
    edge, exchange = edge_to(lambda body, handler: handler.on_result(ClientDisconnected())), Exchange()

    assert edge.short[b"/predict"](exchange)  # type: ignore[arg-type]

    assert not exchange.status
    assert exchange.aborted
    assert edge.in_flight == 0


def test_a_large_body_and_a_server_that_drains_go_the_usual_way() -> None:
    edge = edge_to(lambda body, handler: pytest.fail("was taken"))

    assert not edge.short[b"/predict"](Exchange(b" " * (HEAVY_BYTES + 1)))  # type: ignore[arg-type]
    edge.draining = True
    assert not edge.short[b"/predict"](Exchange())  # type: ignore[arg-type]
