"""The Open Inference Protocol (V2), REST, so that clients of KServe, Triton and others can ask this server.

Source: kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, and Triton's binary tensor data extension.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json

from churn.domain.access import Right
from churn.paths import MODEL
from serving.answers import REASON
from serving.dependencies import ServerDep
from serving.exception_handlers import invalid
from serving.json_bodies import parse_model
from serving.keys import Requires
from serving.openapi import Responses
from serving.predictor import Scored
from serving.problems import Invalid, NotFound, Problem
from serving.protocols.kserve.schemas import (
    DEFAULT,
    OUTPUTS,
    InferenceError,
    InferRequest,
    InferResponse,
    Live,
    ModelMetadata,
    Output,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from serving.protocols.kserve.tensors import COLUMNS, datatypes, packed, rows_of
from serving.schemas import Problem as ProblemBody
from serving.versions.model import Model

LENGTH = "Inference-Header-Content-Length"
"""The header that says where the JSON ends and the binary data begin."""
NAME = r"^[^\x00-\x1f\x7f]+$"
"""A name in a path: `RequestLimits` refuses one with a control character."""


class InferenceRoute(APIRoute):
    """A route whose refusals have the protocol's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler."""
        handle = super().get_route_handler()

        async def handle_in_shape(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                return _refusal(request, problem)
            except RequestValidationError as error:
                return _refusal(request, invalid(error))

        return handle_in_shape


def _refusal(request: Request, problem: Problem) -> Response:
    setattr(request.state, REASON, problem.reason)
    # What the protocol calls malformed is 400, whatever /predict calls it.
    status = 400 if isinstance(problem, Invalid) else problem.status
    return JSONResponse({"error": problem.detail}, status, headers=problem.text_headers())


REFUSALS = {
    400: "The request is malformed, or not what the contract expects",
    401: "No API key, or an unknown one",
    403: "The API key lacks the right for this route",
    404: "The model or the version is not the one that serves",
    413: "The body or its number of rows is too large",
    415: "The body is compressed",
    503: "Overloaded, or not ready: try again",
}


def _refusals(*statuses: int) -> Responses:
    # `RequestLimits` refuses too, and does not know the protocol.
    return {status: {"model": InferenceError | ProblemBody, "description": REFUSALS[status]} for status in statuses}


_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _body() -> dict[str, Any]:
    schema = InferRequest.model_json_schema()
    # References would lead out of the document's part in which the schema stands.
    kinds = schema.pop("$defs")
    schema["properties"]["inputs"]["items"] = kinds["Input"]
    schema["properties"]["outputs"]["anyOf"][0]["items"] = kinds["Output"]
    kinds["Input"]["properties"]["name"]["enum"] = [*COLUMNS]
    kinds["Output"]["properties"]["name"]["enum"] = [*OUTPUTS]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}, **_BYTES}}}


async def served(server: ServerDep, name: Annotated[str, Path(pattern=NAME)]) -> Model:
    """The model that serves, if it is the one of that name."""
    if name != MODEL:
        raise NotFound(f"no model of that name; the one that is served is {MODEL}")
    return server.model()


async def served_version(model: Annotated[Model, Depends(served)], version: Annotated[str, Path(pattern=NAME)]) -> Model:
    """… and of that version."""
    return _pinned(model, version)


def _pinned(model: Model, version: str) -> Model:
    if version != model.version:
        raise NotFound(f"that version is not served; the one that is served is {model.version}")
    return model


ModelDep = Annotated[Model, Depends(served)]
VersionDep = Annotated[Model, Depends(served_version)]
LengthDep = Annotated[
    str | None,
    Header(alias=LENGTH, pattern=r"^[0-9]{1,19}$", description="The bytes of the JSON, which the tensors' bytes follow"),
]

router = APIRouter(prefix="/v2", route_class=InferenceRoute)


@router.get("", summary="The server's name and the extensions that it knows", responses=_refusals(401, 503))
async def metadata(request: Request) -> ServerMetadata:
    """Of this server."""
    return ServerMetadata(name=MODEL, version=request.app.version, extensions=["binary_tensor_data"])


@router.get("/health/live", summary="Alive, as /healthz")
async def live() -> Live:
    """For a liveness probe."""
    return Live(live=True)


@router.get("/health/ready", summary="Ready, as /readyz", responses=_refusals(503))
async def ready(server: ServerDep) -> Ready:
    """For a readiness probe."""
    server.require_ready()
    return Ready(name=MODEL, ready=True)


@router.get("/models/{name}/ready", summary="The model: ready", responses=_refusals(401, 404, 503))
async def model_ready(server: ServerDep, model: ModelDep) -> Ready:
    """As /readyz, for that model."""
    return await ready(server)


@router.get("/models/{name}/versions/{version}/ready", summary="The version: ready", responses=_refusals(401, 404, 503))
async def version_ready(server: ServerDep, model: VersionDep) -> Ready:
    """As /readyz, for that version."""
    return await ready(server)


@router.get("/models/{name}", summary="The model: its inputs and outputs", responses=_refusals(401, 404, 503))
async def model_metadata(model: ModelDep) -> ModelMetadata:
    """One tensor for each column of the contract."""
    return _described(model)


@router.get(
    "/models/{name}/versions/{version}", summary="The version: its inputs and outputs", responses=_refusals(401, 404, 503)
)
async def version_metadata(model: VersionDep) -> ModelMetadata:
    """As for the model, if that version is serving."""
    return _described(model)


def _described(model: Model) -> ModelMetadata:
    inputs = [TensorMetadata(name=name, datatype=datatypes(each)[0], shape=[-1]) for name, each in COLUMNS.items()]
    outputs = [TensorMetadata(name=name, datatype=kind, shape=[-1]) for name, kind in OUTPUTS.items()]
    return ModelMetadata(name=MODEL, versions=[model.version], platform="onnxruntime_onnx", inputs=inputs, outputs=outputs)


async def _infer(server: ServerDep, request: Request, length: str | None) -> tuple[InferRequest, Scored]:
    inference, binary = _parsed(await request.body(), length)
    _check_outputs(inference)
    return inference, await server.service.score_rows(rows_of(inference.inputs, binary, server.settings.max_rows))


def _parsed(body: bytes, length: str | None) -> tuple[InferRequest, bytes]:
    """The JSON, and the bytes after it."""
    end = len(body) if length is None else int(length)
    if end > len(body):
        raise Invalid(f"{LENGTH}: not a number of bytes that the body has; correct it")
    return parse_model(InferRequest, body[:end]), body[end:]


def _check_outputs(inference: InferRequest) -> None:
    names = [each.name for each in inference.outputs or ()]
    if len(set(names)) < len(names) or set(names) - OUTPUTS.keys():
        raise Invalid(f"outputs: a name is unknown or given twice; the model gives {', '.join(OUTPUTS)}")


def _answer(inference: InferRequest, scored: Scored) -> Response:
    predictions = scored.predictions()
    outputs, chunks = [], []
    all_binary = (inference.parameters or {}).get("binary_data_output")
    for each in inference.outputs or [Output(name=DEFAULT)]:
        values = [row[each.name] for row in predictions]
        tensor: dict[str, Any] = {"name": each.name, "datatype": OUTPUTS[each.name], "shape": [len(values)]}
        binary = (each.parameters or {}).get("binary_data")
        if (all_binary if binary is None else binary) is True:
            chunks.append(packed(OUTPUTS[each.name], values))
            tensor["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            tensor["data"] = values
        outputs.append(tensor)
    named = {"model_name": MODEL, "model_version": scored.model.version} | (
        {"id": inference.id} if inference.id is not None else {}
    )
    head = to_json({**named, "outputs": outputs})
    if not chunks:
        return Response(head, media_type="application/json")
    return Response(b"".join([head, *chunks]), media_type="application/octet-stream", headers={LENGTH: str(len(head))})


_INFER: dict[str, Any] = {
    "response_model": InferResponse,
    "responses": {**_refusals(400, 401, 403, 404, 413, 415, 503), 200: {"content": _BYTES}},
    "openapi_extra": _body(),
    "dependencies": [Depends(Requires(Right.PREDICT))],
}


@router.post("/models/{name}/infer", summary="The model: score customers", **_INFER)
async def infer(request: Request, server: ServerDep, model: ModelDep, length: LengthDep = None) -> Response:
    """One tensor for each column, as JSON or in the binary extension."""
    return _answer(*await _infer(server, request, length))


@router.post("/models/{name}/versions/{version}/infer", summary="The version: score customers", **_INFER)
async def infer_by_version(request: Request, server: ServerDep, model: VersionDep, length: LengthDep = None) -> Response:
    """As for the model, by that version alone."""
    inference, scored = await _infer(server, request, length)
    _pinned(scored.model, model.version)  # it may have been switched meanwhile
    return _answer(inference, scored)
