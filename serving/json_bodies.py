"""How the JSON bodies of requests are read: the same for the framework, the fast path and the protocols."""

from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from churn.domain.reasons import reason, validation_message
from serving.problems import Invalid, Unsupported
from serving.repeated_keys import refuse_repeated_keys
from serving.schemas import renamed

JSON = "application/json"

Body = TypeVar("Body", bound=BaseModel)


class JsonRoute(APIRoute):
    """A route that reads its body by `parse_json`; Python's own parser is not strict."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, which gets a body that is parsed already."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            request = _JsonRequest(request.scope, request.receive)
            require_json(request.headers.get("content-type", ""))
            # Not in `json()`: FastAPI answers whatever is raised there with its own 400.
            request.parsed = parse_json(await request.body())
            return await handle(request)

        return handle_json


class _JsonRequest(Request):
    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


def require_json(content_type: str) -> None:
    """Refuse another content type than JSON's; none at all is taken for JSON.

    Raises:
        Unsupported: it is another one.
    """
    if content_type and content_type != JSON and content_type.lower().partition(";")[0].rstrip() != JSON:
        raise Unsupported("Content-Type is not application/json; send JSON")


def parse_json(body: bytes) -> Any:
    """The JSON value in UTF-8, nested 200 deep at most.

    Raises:
        Invalid: it is none, or an object has a key twice.
    """
    try:
        value = from_json(body)
    except ValueError as error:
        raise Invalid(f"body: not JSON: {reason(error)}; correct it") from None
    refuse_repeated_keys(body, _keys_of_value(value))
    return value


def parse_model(model: type[Body], body: bytes) -> Body:
    """As a `JsonRoute` reads a body, in one step.

    Raises:
        Invalid: it is no JSON, not what the model says, or an object has a key twice.
    """
    try:
        value = model.model_validate_json(body)
    except ValidationError as error:
        raise Invalid(in_words(error.errors())) from None
    refuse_repeated_keys(body, _keys_of_model(value))
    return value


def _keys_of_value(value: Any) -> int:
    """How many keys an object and the objects in its lists have together."""
    lists = [each for each in value.values() if isinstance(each, list)] if isinstance(value, dict) else []
    return sum([len(each) for each in [value, *chain(*lists)] if isinstance(each, dict)])


def _keys_of_model(body: BaseModel) -> int:
    """How many keys the objects of a body have together."""
    rows: list[BaseModel] = getattr(body, "customers", None) or getattr(body, "outcomes", [])
    return len(body.__pydantic_fields_set__) + sum([len(row.__pydantic_fields_set__) for row in rows])


def in_words(errors: Sequence[Any]) -> str:
    """The first of pydantic's errors, in one line, without the value: it may be personal.

    For a row with the raw file's own column names: what the columns are called here.
    """
    first = errors[0]
    *row, _ = first["loc"] or ("",)
    extra = (each["loc"][-1] for each in errors if each["type"] == "extra_forbidden" and [*each["loc"][:-1]] == row)
    if how := renamed(extra):
        return f"{_place(row)}: the raw file's column names; {how}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{_place(first['loc'])}: {validation_message(first)}; correct it{more}"


def _place(path: Sequence[int | str]) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path).lstrip(".") or "body"
