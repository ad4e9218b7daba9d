"""The server's application: its routes together, and how it starts and stops."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from churn.settings import Serving
from serving.exception_handlers import add_exception_handlers
from serving.middleware import RequestLimits
from serving.openapi import describe
from serving.page.routes import router as page
from serving.protocols.kserve.routes import router as kserve
from serving.protocols.mlflow.routes import router as mlflow
from serving.routers import predictions, state
from serving.routes import Routes
from serving.server import Server

log = logging.getLogger(__name__)


def create_app(settings: Serving) -> Any:
    """The ASGI application of one worker.

    Raises:
        ChurnError: a setting names a place of a kind that is not known.
    """
    server = Server(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.start()
        _drain_on_sigterm(server)
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
        strict_content_type=False,
    )
    api.state.server = server
    api.include_router(predictions.router)
    api.include_router(predictions.outcomes_router)
    api.include_router(state.router)
    api.include_router(mlflow)
    api.include_router(kserve)
    api.include_router(page)
    routes = Routes(api.routes)
    add_exception_handlers(api, routes)
    describe(api)
    app = server.requests = RequestLimits(api, settings, routes)
    if settings.fast_path:
        from serving.fast_path.wrapper import FastPath

        return FastPath(app, server.service)
    return app


def _drain_on_sigterm(server: Server) -> None:
    """SIGTERM first makes `/readyz` refuse; uvicorn, which closes the port at once, gets it `drain_s` later."""
    stop = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(stop):
        return
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: Any) -> None:
        if server.draining:
            return
        server.draining = server.requests.draining = True
        log.info("draining for %g s", server.settings.drain_s)
        loop.call_soon_threadsafe(loop.call_later, server.settings.drain_s, stop, number, None)

    signal.signal(signal.SIGTERM, drain)
