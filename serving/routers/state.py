"""The state of the server, the version that serves, and MLflow's webhook that shortens the wait for a new one."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from churn.domain.access import Right
from churn.features import FEATURES
from churn.paths import MODEL
from serving import metrics
from serving.dependencies import ServerDep
from serving.keys import Requires
from serving.openapi import refusals
from serving.problems import Unauthorized
from serving.schemas import ModelResponse, Status

router = APIRouter()


@router.get("/model", summary="The version that is serving", responses=refusals(401, 503))
async def model(server: ServerDep) -> ModelResponse:
    """Its figures, threshold, features and age."""
    now = server.model()
    return ModelResponse(
        model=MODEL,
        model_version=now.version,
        threshold=now.threshold,
        features=[each.name for each in FEATURES],
        metrics=now.metrics,
        trained_at=now.created_at,
        # The registry's clock may be ahead of this one.
        age_s=max((datetime.now(UTC) - now.created_at).total_seconds(), 0.0),
        bundle_sha256=now.digest,
        pinned=bool(server.cache.pin.name),
    )


@router.get("/health", summary="Alive, as /healthz")
@router.get("/healthz", summary="Alive: depends on nothing else")
async def healthz() -> Status:
    """For a liveness probe."""
    return Status(status="alive")


@router.get("/readyz", summary="Ready: a version is loaded and its golden prediction came out right", responses=refusals(503))
async def readyz(server: ServerDep) -> Status:
    """For a readiness probe and a load balancer."""
    server.require_ready()
    return Status(status="ready")


@router.get("/metrics", summary="Prometheus' metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def exposition(server: ServerDep) -> Response:
    """Of all workers."""
    server.count()
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post(
    "/hooks/mlflow",
    summary="MLflow's webhook: poll the registry now",
    responses=refusals(401, 403, 413, 415, 422, 503),
    status_code=202,
    dependencies=[Depends(Requires(Right.ADMIN))],
)
async def mlflow_webhook(request: Request, server: ServerDep) -> Status:
    """The body is not read beyond its signature."""
    if not _is_signed(server.settings.webhook_secret, request, await request.body()):
        raise Unauthorized("the webhook is not signed with CHURN_WEBHOOK_SECRET")
    server.swap.refresh()
    return Status(status="looking")


def _is_signed(secret: str, request: Request, body: bytes) -> bool:
    """Source: mlflow.org/docs/latest/ml/webhooks: v1,base64(hmac_sha256(secret, delivery id . timestamp . body))."""
    head = request.headers
    signed = f"{head.get('x-mlflow-delivery-id', '')}.{head.get('x-mlflow-timestamp', '')}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256))
    return bool(secret) and hmac.compare_digest(expected, head.get("x-mlflow-signature", "").encode())
