"""Scores with their reasons, and reports of what became true."""

from fastapi import APIRouter, Depends

from churn.domain.access import Right
from serving.dependencies import ServiceDep
from serving.json_bodies import JsonRoute
from serving.keys import KeyDep, Requires
from serving.openapi import refusals
from serving.schemas import (
    ByIdRequest,
    ExplainRequest,
    ExplainResponse,
    OutcomesRequest,
    OutcomesResponse,
    PredictRequest,
    PredictResponse,
)

REFUSALS = refusals(401, 403, 413, 415, 422, 503)

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(Requires(Right.PREDICT))], responses=REFUSALS)
outcomes_router = APIRouter(route_class=JsonRoute, dependencies=[Depends(Requires(Right.OUTCOMES))], responses=REFUSALS)


@router.post("/predict", summary="Score customers by their attributes")
async def predict(body: PredictRequest, service: ServiceDep) -> PredictResponse:
    """Answers with a probability, a decision and a risk per customer, in the order of the request."""
    return PredictResponse.model_validate((await service.score_inline(body.customers)).content())


@router.post("/predict/by-id", summary="Score customers by identifier", responses=refusals(404))
async def predict_by_id(body: ByIdRequest, service: ServiceDep) -> PredictResponse:
    """As `/predict`, with the features of the online store."""
    return PredictResponse.model_validate((await service.score_by_id(body.customer_ids)).content())


@router.post("/explain", summary="Score customers with the reasons", responses=refusals(404))
async def explain(body: ExplainRequest, service: ServiceDep) -> ExplainResponse:
    """As either of the others, with what each feature adds to the log-odds."""
    return await service.explain(body)


@outcomes_router.post("/outcomes", summary="Report which customers churned", responses=refusals(429))
async def outcomes(body: OutcomesRequest, service: ServiceDep, key: KeyDep) -> OutcomesResponse:
    """Answers when the outcomes are stored; the same report may be sent again."""
    return await service.outcomes(body, key)
