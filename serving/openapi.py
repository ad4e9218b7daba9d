"""The parts of the OpenAPI document that FastAPI cannot derive: the routes parse their bodies by themselves."""

from typing import Any

from fastapi import FastAPI

from serving.schemas import Problem

Responses = dict[int | str, dict[str, Any]]

PROBLEMS = {
    401: "No API key, or an unknown one",
    403: "The API key lacks the right for this route",
    404: "A customer is unknown, or its features are too old",
    413: "The body or its number of rows is too large",
    415: "The body is not JSON",
    422: "The body is not what the contract asks for",
    429: "The API key has reported as many outcomes as it may in an hour: report more later",
    503: "Overloaded, not ready, or something that it needs is out of reach: try again",
}


def refusals(*statuses: int) -> Responses:
    """What a route may refuse with, by `PROBLEMS`."""
    return {status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses}


def body_of(kind: Any) -> dict[str, Any]:
    """A body of that schema; what it refers to is beside it, until `complete` puts it where references lead."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def complete(api: FastAPI) -> None:
    """Let the document have every schema where its references lead."""
    generate = api.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for route in document["paths"].values():
            for operation in route.values():
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    document["components"]["schemas"] |= content.get("schema", {}).pop("$defs", {})
        return document

    api.openapi = openapi  # type: ignore[method-assign]
