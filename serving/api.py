"""The server's own routes. What they do is in service.py; here they are named, described and refused."""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from churn.features import FEATURES
from churn.paths import MODEL
from serving import metrics
from serving.openapi import Responses, body_of, refusals
from serving.problems import Unauthorized, Unsupported
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
from serving.server import Server

Action = Callable[[bytes], Awaitable[bytes]]
Endpoint = Callable[[Request], Awaitable[Response]]


def add_actions(api: FastAPI, server: Server) -> None:
    """Add what takes a body: scores, reasons, outcomes, and MLflow's webhook."""
    service = server.service
    usual = refusals(401, 403, 413, 415, 422, 503)
    by_name = usual | refusals(404)

    async def outcomes(request: Request) -> Response:
        return _json(await service.outcomes(await _body(request), request.state.key))

    actions: list[tuple[str, str, Endpoint, Any, Any, Responses]] = [
        ("/predict", "Score customers by their attributes", _endpoint(service.predict), PredictRequest, PredictResponse, usual),
        (
            "/predict/by-id",
            "Score customers by identifier",
            _endpoint(service.predict_by_id),
            ByIdRequest,
            PredictResponse,
            by_name,
        ),
        ("/explain", "Score customers and tell why", _endpoint(service.explain), ExplainRequest, ExplainResponse, by_name),
        ("/outcomes", "Report who left and who stayed", outcomes, OutcomesRequest, OutcomesResponse, usual | refusals(429)),
    ]
    for path, summary, endpoint, request, answer, refused in actions:
        api.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            summary=summary,
            response_model=answer,
            responses=refused,
            openapi_extra=body_of(request),
            name=path,
        )

    @api.post("/hooks/mlflow", summary="MLflow's webhook: poll the registry now", responses=usual, status_code=202)
    async def hook(request: Request) -> Status:
        body = await request.body()
        if not _is_signed(server.settings.webhook_secret, request, body):
            raise Unauthorized("the webhook is not signed with CHURN_WEBHOOK_SECRET")
        server.swap.refresh()
        return Status(status="looking")


def _endpoint(action: Action) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return _json(await action(await _body(request)))

    return endpoint


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "application/json").lower().partition(";")[0].rstrip() != "application/json":
        raise Unsupported("Content-Type is not application/json; send JSON")
    return await request.body()


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _is_signed(secret: str, request: Request, body: bytes) -> bool:
    """Source: mlflow.org/docs/latest/ml/webhooks: v1,base64(hmac_sha256(secret, delivery id . timestamp . body))."""
    head = request.headers
    signed = f"{head.get('x-mlflow-delivery-id', '')}.{head.get('x-mlflow-timestamp', '')}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256))
    return bool(secret) and hmac.compare_digest(expected, head.get("x-mlflow-signature", "").encode())


def add_state(api: FastAPI, server: Server) -> None:
    """Add what tells of the server and of the version."""
    not_ready = refusals(503)

    @api.get("/model", summary="The version that is serving", responses=refusals(401, 503))
    async def model() -> ModelResponse:
        now = server.model()
        return ModelResponse(
            model=MODEL,
            model_version=now.version,
            threshold=now.threshold,
            features=[each.name for each in FEATURES],
            metrics=now.metrics,
            trained_at=now.created_at,
            age_s=(datetime.now(UTC) - now.created_at).total_seconds(),
            bundle_sha256=now.digest,
            pinned=bool(server.cache.pin.name),
        )

    @api.get("/health", summary="Alive, as /healthz")
    @api.get("/healthz", summary="Alive: asks nothing of anyone")
    async def healthz() -> Status:
        return Status(status="alive")

    @api.get("/readyz", summary="Ready: a version is loaded and its golden prediction came out right", responses=not_ready)
    async def readyz() -> Status:
        server.require_ready()
        return Status(status="ready")

    @api.get("/metrics", summary="Prometheus' metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def exposition() -> Response:
        server.count()
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
