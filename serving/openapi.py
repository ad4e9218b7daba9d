"""The refusals in the OpenAPI document, as far as FastAPI does not derive them."""

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
    422: "The body is not what the contract expects",
    429: "The API key has reported as many outcomes as it may in an hour: report more later",
    503: "Overloaded, not ready, or something that it needs is out of reach: try again",
}


UNREADABLE = {
    400: "The request is not HTTP, can be read in two ways, or has a control character in its path",
    408: "The head of the request took too long",
    414: "The path and the query are too long",
    417: "The header Expect is not 100-continue",
    431: "The header fields are too many or too large",
    501: "The method is CONNECT, or Transfer-Encoding is not chunked",
    505: "The version of HTTP is neither 1.1 nor 1.0",
}
"""What `serving.http.protocol` and `serving.middleware` answer before a route is known, and so on every route."""


def refusals(*statuses: int) -> Responses:
    """What a route may refuse with, by `PROBLEMS`."""
    return {status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses}


_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def describe(app: FastAPI) -> None:
    """Add to the document what every route can answer; remove the refusal that FastAPI adds and this server never sends."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        for operation in (operation for route in document["paths"].values() for operation in route.values()):
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                del answers["422"]
            for status, description in UNREADABLE.items():
                answers.setdefault(str(status), {"description": description, "content": _PROBLEM})
        return document

    app.openapi = openapi  # type: ignore[method-assign]
