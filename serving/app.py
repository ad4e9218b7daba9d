"""The server's application: routes, what they share, and how it starts and stops."""

import asyncio
import base64
import hashlib
import hmac
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Route

from churn import model_store, online_store
from churn.events import open_sink
from churn.features import FEATURES
from churn.settings import Serving
from serving import metrics
from serving.edge import Edge
from serving.inference_protocol import add_inference
from serving.mlflow_protocol import add_mlflow
from serving.page import add_page
from serving.prediction_log import PredictionLog
from serving.predictor import Predictor
from serving.problems import NoModel, Problem, Unauthorized, Unsupported
from serving.schemas import (
    ByIdRequest,
    ExplainRequest,
    ExplainResponse,
    ModelResponse,
    OutcomesRequest,
    OutcomesResponse,
    PredictRequest,
    PredictResponse,
    Status,
)
from serving.schemas import Problem as ProblemBody
from serving.service import Service
from serving.swap import Shelf, Swap

log = logging.getLogger(__name__)

MODEL = "churn"
ALIAS = "production"
LOOK_UP_TIMEOUT_S = 3
"""Of one answer of the registry: when it hangs at the start, the last good version serves within 10 s."""
CLOSE_S = 10
"""How long the prediction log may take to drain."""

Action = Callable[[bytes], Awaitable[bytes]]


class Server:
    """Everything that one worker holds."""

    def __init__(self, settings: Serving) -> None:
        self.settings = settings
        store = model_store.connect(settings.tracking_uri, timeout_s=LOOK_UP_TIMEOUT_S)
        self.shelf = Shelf(settings.models, settings.kept_models)
        self.swap = Swap(store, self.shelf, model=MODEL, alias=ALIAS, poll_s=settings.poll_s)
        sink = open_sink(settings.events)
        self.log = PredictionLog(
            sink, capacity_rows=settings.log_capacity_rows, part_rows=settings.log_part_rows, flush_s=settings.log_flush_s
        )
        self.predictor = Predictor(
            lambda: self.swap.current, self.log if settings.log_capacity_rows else None, deadline_s=settings.deadline_s
        )
        online = online_store.connect(settings.online_store, timeout_s=settings.store_timeout_s)
        self.service = Service(settings, self.predictor, online, sink)
        self.draining = False
        self.edge: Edge
        self._counted: dict[Any, int] = {}

    def start(self) -> None:
        """Begin to look for the production version, and to write the log."""
        self.log.start()
        self.swap.start()

    def count(self) -> None:
        """Bring the metrics up to the counts of the log and of the edge."""
        self.edge.count()
        self.predictor.count()
        queued, written, dropped = self.log.counts()
        now = {metrics.LOG_WRITTEN: written, metrics.LOG_DROPPED: dropped, metrics.LOG_FAILURES: self.log.failed_flushes}
        metrics.LOG_QUEUED.set(queued)
        for counter, value in now.items():
            counter.inc(value - self._counted.get(counter, 0))
        self._counted = now

    async def keep_counting(self) -> None:
        """Count every second: another worker may be the one that is asked for the metrics."""
        while True:
            self.count()
            self.edge.give_up_on_slow_bodies()
            await asyncio.sleep(1)

    async def close(self) -> None:
        """Write what is logged, let everything go."""
        await asyncio.to_thread(self.log.close, CLOSE_S)
        self.count()
        self.service.close()
        await asyncio.to_thread(self.swap.close)
        metrics.leave()


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
        exception_handlers={Problem: _problem, HTTPException: _http_problem},
    )
    api.state.server = server
    _add_actions(api, server)
    _add_state(api, server)
    add_mlflow(api, server)
    add_inference(api, server)
    add_page(api, server)
    _describe(api)
    hot = {"/predict": server.service.predict, "/predict/by-id": server.service.predict_by_id}
    edge = server.edge = Edge(api, settings, hot=hot, routes=_names_of(api))
    return edge


def _names_of(api: FastAPI) -> Callable[[str], str]:
    """A function from a path to the route that takes it, for metrics: `/v2/models/{name}/infer`, or `other`."""
    routes = [route for route in api.routes if isinstance(route, Route)]
    plain = {route.path for route in routes if "{" not in route.path}
    patterns = [route for route in routes if "{" in route.path]

    def name_of(path: str) -> str:
        return path if path in plain else next((each.path for each in patterns if each.path_regex.match(path)), "other")

    return name_of


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


PROBLEMS = {
    401: "No API key, or an unknown one",
    413: "The body or its number of rows is too large",
    415: "The body is not JSON",
    422: "The body is not what the contract asks for",
    503: "Overloaded, not ready, or something that it needs is out of reach: try again",
}


def responses(*more: tuple[int, str]) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route that takes a body."""
    return {status: {"model": ProblemBody, "description": text} for status, text in (*PROBLEMS.items(), *more)}


def body_of(kind: Any) -> dict[str, Any]:
    """The OpenAPI of a body that the route parses by itself; what it refers to, `create_app` puts where it can be found."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    _REFERRED.update(schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_REFERRED: dict[str, Any] = {}


def _describe(api: FastAPI) -> None:
    generate = api.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["schemas"].update(_REFERRED)
        return document

    api.openapi = openapi  # type: ignore[method-assign]


def _add_actions(api: FastAPI, server: Server) -> None:
    service = server.service
    unknown = (404, "A customer is unknown, or its features are too old")
    actions: list[tuple[str, str, Action, Any, Any, dict[int | str, dict[str, Any]]]] = [
        ("/predict", "Score customers by their attributes", service.predict, PredictRequest, PredictResponse, responses()),
        (
            "/predict/by-id",
            "Score customers by identifier",
            service.predict_by_id,
            ByIdRequest,
            PredictResponse,
            responses(unknown),
        ),
        ("/explain", "Score customers and tell why", service.explain, ExplainRequest, ExplainResponse, responses(unknown)),
        ("/outcomes", "Report who left and who stayed", service.outcomes, OutcomesRequest, OutcomesResponse, responses()),
    ]
    for path, summary, action, request, answer, refusals in actions:
        api.add_api_route(
            path,
            _endpoint(action),
            methods=["POST"],
            summary=summary,
            response_model=answer,
            responses=refusals,
            openapi_extra=body_of(request),
            name=path,
        )

    @api.post("/hooks/mlflow", summary="MLflow's webhook: look at the registry now", responses=responses(), status_code=202)
    async def hook(request: Request) -> Status:
        body = await request.body()
        if not _is_signed(server.settings.webhook_secret, request, body):
            raise Unauthorized("the webhook is not signed with CHURN_WEBHOOK_SECRET")
        server.swap.poke()
        return Status(status="looking")


def _endpoint(action: Action) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.headers.get("content-type", "application/json").lower().partition(";")[0].rstrip() != "application/json":
            raise Unsupported("Content-Type is not application/json; send JSON")
        return Response(await action(await request.body()), media_type="application/json")

    return endpoint


def _is_signed(secret: str, request: Request, body: bytes) -> bool:
    """Source: mlflow.org/docs/latest/ml/webhooks: v1,base64(hmac_sha256(secret, delivery id . timestamp . body))."""
    head = request.headers
    signed = f"{head.get('x-mlflow-delivery-id', '')}.{head.get('x-mlflow-timestamp', '')}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256))
    return bool(secret) and hmac.compare_digest(expected, head.get("x-mlflow-signature", "").encode())


def _add_state(api: FastAPI, server: Server) -> None:
    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": ProblemBody, "description": PROBLEMS[503]}}

    @api.get("/model", summary="The version that is serving", responses=not_ready | {401: {"model": ProblemBody}})
    async def model() -> ModelResponse:
        now = server.swap.current
        if not now:
            raise NoModel(server.swap.reason)
        return ModelResponse(
            model=MODEL,
            model_version=now.version,
            threshold=now.threshold,
            features=[each.name for each in FEATURES],
            metrics=now.metrics,
            trained_at=now.created_at,
            age_s=(datetime.now(UTC) - now.created_at).total_seconds(),
            onnx_sha256=now.digest,
            pinned=bool(server.shelf.pinned),
        )

    @api.get("/health", summary="Alive, as /healthz")
    @api.get("/healthz", summary="Alive: asks nothing of anyone")
    async def healthz() -> Status:
        return Status(status="alive")

    @api.get("/readyz", summary="Ready: a version is loaded and its golden prediction came out right", responses=not_ready)
    async def readyz() -> Status:
        if server.draining:
            raise NoModel("draining: the server is stopping")
        if not server.swap.current:
            raise NoModel(server.swap.reason)
        return Status(status="ready")

    @api.get("/metrics", summary="Prometheus' metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def exposition() -> Response:
        server.count()
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return JSONResponse({"detail": error.detail}, error.status, headers=headers)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)
