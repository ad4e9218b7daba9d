"""The server's application: its routes together, and how it starts and stops."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from churn.settings import Serving
from serving.answers import REASON
from serving.api import add_actions, add_state
from serving.edge import Edge
from serving.openapi import complete
from serving.page.routes import add_page
from serving.problems import Problem
from serving.protocols.kserve.routes import add_inference
from serving.protocols.mlflow.routes import add_mlflow
from serving.root_path import without_slash
from serving.routes import Routes
from serving.server import Server

log = logging.getLogger(__name__)


def create_app(settings: Serving) -> Edge:
    """The ASGI application of one worker.

    Raises:
        ChurnError: a setting names a place of a kind that is not known.
    """
    server = Server(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.start()
        _drain_on_sigterm(server, edge)
        counting = asyncio.create_task(server.keep_counting())
        yield
        counting.cancel()
        await server.close()

    api: FastAPI = FastAPIOffline(
        title="Churn",
        summary="The production model's churn probabilities, their reasons, and the version that said so",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        exception_handlers={Problem: _problem},
    )
    api.state.server = server
    add_actions(api, server)
    add_state(api, server)
    add_mlflow(api, server)
    add_inference(api, server)
    add_page(api, server)
    complete(api)
    hot = {"/predict": server.service.predict, "/predict/by-id": server.service.predict_by_id}
    short = {"/predict": server.service.submit}
    routes = Routes(api.routes)
    api.add_exception_handler(HTTPException, partial(_http_problem, routes.name))
    edge = server.edge = Edge(api, settings, hot=hot, short=short, routes=routes)
    return edge


def _drain_on_sigterm(server: Server, edge: Edge) -> None:
    """SIGTERM first makes `/readyz` say no; uvicorn, which closes the port at once, hears of it `drain_s` later."""
    stop = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(stop):
        return
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: Any) -> None:
        if server.draining:
            return
        server.draining = edge.draining = True
        log.info("draining for %g s", server.settings.drain_s)
        loop.call_soon_threadsafe(loop.call_later, server.settings.drain_s, stop, number, None)

    signal.signal(signal.SIGTERM, drain)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    setattr(request.state, REASON, error.reason)
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return JSONResponse({"detail": error.detail}, error.status, headers=headers)


async def _http_problem(route_of: Callable[[str], str], request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and (redirect := without_slash(request, route_of)):
        return redirect
    setattr(request.state, REASON, HTTPStatus(error.status_code).name.lower())
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)
