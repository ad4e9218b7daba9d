"""MLflow's scoring protocol, so that a client of `mlflow models serve` needs no other address than this server's.

Source: mlflow.org/docs/latest/ml/deployment/deploy-model-locally (MLflow 3.17). MLflow casts what does not fit its signature, and
scores it; here a value that the contract refuses is refused, and an extra column is ignored as MLflow ignores it.
"""

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from churn.domain.access import Right
from serving.answers import REASON
from serving.dependencies import ServerDep
from serving.keys import Requires
from serving.openapi import Responses, refusals
from serving.problems import Invalid
from serving.protocols.mlflow.frames import documented, rows_of
from serving.schemas import Problem as ProblemBody
from serving.schemas import Status, Strict
from serving.service import Service

MLFLOW = "3.17.0"
"""The MLflow whose protocol this is; the server has none."""


class Probability(Strict):
    """One row of the model's output."""

    churn_probability: float


class InvocationsAnswer(Strict):
    """The model's output, in the order of the request."""

    predictions: list[Probability]


class MlflowProblem(Strict):
    """Why a request was refused, in MLflow's shape."""

    error_code: str
    message: str


REFUSALS: Responses = {
    400: {
        "model": MlflowProblem | ProblemBody,
        "description": "The request is malformed, the body is in none of the forms, or not what the contract expects",
    },
    **refusals(401, 403, 413, 503),
    415: {"model": ProblemBody, "description": "The body is neither JSON nor CSV"},
}

router = APIRouter()


@router.post(
    "/invocations",
    summary="Score customers, as `mlflow models serve` does",
    response_model=InvocationsAnswer,
    responses=REFUSALS,
    openapi_extra={"requestBody": {"required": True, "content": documented()}},
    dependencies=[Depends(Requires(Right.PREDICT))],
)
async def invocations(request: Request, server: ServerDep) -> Response:
    """Takes the forms of MLflow's own server: `dataframe_split`, `dataframe_records`, `instances`, `inputs`, or CSV."""
    try:
        rows = rows_of(await request.body(), request.headers.get("content-type", ""), server.settings.max_rows)
        return JSONResponse({"predictions": await _scored(server.service, rows)})
    except Invalid as problem:
        setattr(request.state, REASON, problem.reason)
        return JSONResponse({"error_code": "BAD_REQUEST", "message": problem.detail}, 400)


@router.get("/ping", summary="Ready, as /readyz", responses=refusals(503))
async def ping(server: ServerDep) -> Status:
    """For MLflow's clients."""
    server.require_ready()
    return Status(status="ready")


@router.get(
    "/version",
    summary="The version of MLflow whose protocol this is",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401, 503)},
)
async def version() -> Response:
    """For MLflow's clients."""
    return Response(MLFLOW, media_type="text/plain")


async def _scored(service: Service, rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """One answer per row; none for no rows, as of an empty DataFrame."""
    if not rows:
        return []
    return [{"churn_probability": each} for each in (await service.score_rows(rows)).probability]
