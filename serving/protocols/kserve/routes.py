"""The Open Inference Protocol (V2), REST, so that clients of KServe, Triton and others can ask this server.

Source: kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, and Triton's binary tensor data extension.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from pydantic_core import to_json

from churn.paths import MODEL
from serving.answers import REASON
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
from serving.repeated_keys import refuse_repeated_keys
from serving.schemas import Problem as ProblemBody
from serving.service import in_words
from serving.versions.model import Model

if TYPE_CHECKING:
    from serving.server import Server

LENGTH = "Inference-Header-Content-Length"
"""The header that says where the JSON ends and the binary data begin."""


def add_inference(api: FastAPI, server: "Server") -> None:
    """Add the routes below `/v2`."""
    add = _Routes(api)

    async def metadata(request: Request) -> ServerMetadata:
        return ServerMetadata(name=MODEL, version=api.version, extensions=["binary_tensor_data"])

    async def live(request: Request) -> Live:
        return Live(live=True)

    async def ready(request: Request) -> Ready:
        server.require_ready()
        return Ready(name=MODEL, ready=True)

    async def model_ready(request: Request) -> Ready:
        server.require_ready()
        _model(server, **request.path_params)
        return Ready(name=MODEL, ready=True)

    async def model_metadata(request: Request) -> ModelMetadata:
        return _described(_model(server, **request.path_params))

    async def infer(request: Request) -> Response:
        return await _infer(server, request)

    add("", metadata, ServerMetadata, "The server's name and the extensions that it knows", 401, 503)
    add("/health/live", live, Live, "Alive, as /healthz")
    add("/health/ready", ready, Ready, "Ready, as /readyz", 503)
    for path, of in (("/models/{name}", "The model"), ("/models/{name}/versions/{version}", "The version, if it is serving")):
        add(path, model_metadata, ModelMetadata, f"{of}: its inputs and outputs", 401, 404, 503)
        add(f"{path}/ready", model_ready, Ready, f"{of}: ready", 401, 404, 503)
        add(f"{path}/infer", infer, InferResponse, f"{of}: score customers", 400, 401, 403, 404, 413, 415, 503)


class _Routes:
    """Adds routes with the statuses that they can answer, and gives their refusals the protocol's shape."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    def __call__(self, path: str, action: Callable[[Request], Awaitable[Any]], answer: Any, summary: str, *refused: int) -> None:
        async def endpoint(request: Request) -> Any:
            try:
                return await action(request)
            except Problem as problem:
                # What the protocol calls malformed is 400, whatever /predict calls it.
                status = 400 if isinstance(problem, Invalid) else problem.status
                headers = {name.decode(): value.decode() for name, value in problem.headers}
                setattr(request.state, REASON, problem.reason)
                return JSONResponse({"error": problem.detail}, status, headers=headers)

        # The edge, which lets a request in or not, does not know the protocol.
        described: dict[int | str, dict[str, Any]] = {
            each: {"model": InferenceError | ProblemBody, "description": REFUSALS[each]} for each in refused
        }
        infers = path.endswith("/infer")
        self._api.add_api_route(
            f"/v2{path}",
            endpoint,
            methods=["POST" if infers else "GET"],
            summary=summary,
            response_model=answer,
            responses=described | (_BINARY if infers else {}),
            openapi_extra=_parameters(path) | (_body() if infers else {}),
            name=f"/v2{path}",
        )


REFUSALS = {
    400: "The request is malformed, or not what the contract asks for",
    401: "No API key, or an unknown one",
    403: "The API key lacks the right for this route",
    404: "The model or the version is not the one that serves",
    413: "The body or its number of rows is too large",
    415: "The body is compressed",
    503: "Overloaded, or not ready: try again",
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BINARY: dict[int | str, dict[str, Any]] = {200: {"content": _BYTES}}


def _parameters(path: str) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f]+$"}
    found = [
        {"name": each, "in": "path", "required": True, "schema": text} for each in ("name", "version") if f"{{{each}}}" in path
    ]
    if path.endswith("/infer"):
        about = "In the binary extension: the bytes of the JSON, which the tensors' bytes follow"
        found.append({"name": LENGTH, "in": "header", "description": about, "schema": {"type": "integer", "minimum": 0}})
    return {"parameters": found} if found else {}


def _body() -> dict[str, Any]:
    schema = InferRequest.model_json_schema()
    # References would lead out of the document's part in which the schema stands.
    kinds = schema.pop("$defs")
    schema["properties"]["inputs"]["items"] = kinds["Input"]
    schema["properties"]["outputs"]["anyOf"][0]["items"] = kinds["Output"]
    kinds["Input"]["properties"]["name"]["enum"] = [*COLUMNS]
    kinds["Output"]["properties"]["name"]["enum"] = [*OUTPUTS]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}, **_BYTES}}}


def _model(server: "Server", name: str = "", version: str = "") -> Model:
    """The model that serves, if it is the one that is asked for."""
    if name and name != MODEL:
        raise NotFound(f"no model of that name; the one that is served is {MODEL}")
    model = server.model()
    _pinned(model, version)
    return model


def _pinned(model: Model, version: str) -> None:
    if version and version != model.version:
        raise NotFound(f"that version is not served; the one that is served is {model.version}")


def _described(model: Model) -> ModelMetadata:
    inputs = [TensorMetadata(name=name, datatype=datatypes(each)[0], shape=[-1]) for name, each in COLUMNS.items()]
    outputs = [TensorMetadata(name=name, datatype=kind, shape=[-1]) for name, kind in OUTPUTS.items()]
    return ModelMetadata(name=MODEL, versions=[model.version], platform="onnxruntime_onnx", inputs=inputs, outputs=outputs)


async def _infer(server: "Server", request: Request) -> Response:
    version = request.path_params.get("version", "")
    _model(server, **request.path_params)
    asked, binary = _parsed(await request.body(), request)
    _check_outputs(asked)
    rows = rows_of(asked.inputs, binary, server.settings.max_rows)
    scored = await server.service.score_rows(rows)
    _pinned(scored.model, version)  # it may have been switched meanwhile
    return _answer(asked, scored)


def _parsed(body: bytes, request: Request) -> tuple[InferRequest, bytes]:
    """The JSON, and the bytes after it."""
    given = request.headers.get(LENGTH, str(len(body)))
    # A number of more digits than this is none that fits, and int() refuses one of thousands.
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and int(given) <= len(body)):
        raise Invalid(f"{LENGTH}: not a number of bytes that the body has; correct it")
    head, binary = body[: int(given)], body[int(given) :]
    try:
        asked = InferRequest.model_validate_json(head)
    except ValidationError as error:
        raise Invalid(in_words(error)) from None
    refuse_repeated_keys(head)
    return asked, binary


def _check_outputs(asked: InferRequest) -> None:
    names = [each.name for each in asked.outputs or ()]
    if len(set(names)) < len(names) or set(names) - OUTPUTS.keys():
        raise Invalid(f"outputs: a name is unknown or given twice; the model gives {', '.join(OUTPUTS)}")


def _answer(asked: InferRequest, scored: Scored) -> Response:
    predictions = scored.predictions()
    outputs, chunks = [], []
    all_binary = (asked.parameters or {}).get("binary_data_output")
    for each in asked.outputs or [Output(name=DEFAULT)]:
        values = [row[each.name] for row in predictions]
        tensor: dict[str, Any] = {"name": each.name, "datatype": OUTPUTS[each.name], "shape": [len(values)]}
        binary = (each.parameters or {}).get("binary_data")
        if (all_binary if binary is None else binary) is True:
            chunks.append(packed(OUTPUTS[each.name], values))
            tensor["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            tensor["data"] = values
        outputs.append(tensor)
    named = {"model_name": MODEL, "model_version": scored.model.version} | ({"id": asked.id} if asked.id is not None else {})
    head = to_json({**named, "outputs": outputs})
    if not chunks:
        return Response(head, media_type="application/json")
    return Response(b"".join([head, *chunks]), media_type="application/octet-stream", headers={LENGTH: str(len(head))})
