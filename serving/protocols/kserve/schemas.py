"""What requests and answers of the Open Inference Protocol look like."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from serving.protocols.kserve.tensors import Input
from serving.schemas import Strict

OUTPUTS = {"churn_probability": "FP64", "churn": "BOOL", "risk": "BYTES"}
DEFAULT = "churn_probability"
"""The output of a request that names none."""


class Output(BaseModel):
    """An output to return; its parameter `binary_data` says how."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """Customers to score: one tensor per column. Null is the same as absent wherever a field is optional, as clients send it."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: Annotated[list[Input], Field(min_length=1, fail_fast=True)]
    outputs: Annotated[list[Output] | None, Field(fail_fast=True)] = None


class Tensor(Strict):
    """An output: values in `data`, or after the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferResponse(Strict):
    """Scores, in the order of the request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class TensorMetadata(Strict):
    """What a tensor is called and made of; a size of -1 may be any."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Strict):
    """The model that is serving."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(Strict):
    """The server and the protocol's extensions that it knows."""

    name: str
    version: str
    extensions: list[str]


class Live(Strict):
    """The server answers."""

    live: bool


class Ready(Strict):
    """The server, or the model of that name, is ready."""

    name: str
    ready: bool


class InferenceError(Strict):
    """Why a request was refused, in the protocol's shape."""

    error: str
