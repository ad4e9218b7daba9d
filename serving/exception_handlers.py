"""How exceptions of endpoints become answers: `{"detail": …}`, in one line and without values of the request."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from serving.answers import REASON
from serving.json_bodies import in_words
from serving.problems import Invalid, Problem
from serving.root_path import without_slash
from serving.routes import Routes


def add_exception_handlers(app: FastAPI, routes: Routes) -> None:
    """Add them; `routes` are the application's."""

    @app.exception_handler(Problem)
    async def handle_problem(request: Request, problem: Problem) -> Response:
        setattr(request.state, REASON, problem.reason)
        return JSONResponse({"detail": problem.detail}, problem.status, headers=problem.text_headers())

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return await handle_problem(request, invalid(error))

    @app.exception_handler(HTTPException)
    async def handle_http_exception(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and (redirect := without_slash(request, routes.name)):
            return redirect
        setattr(request.state, REASON, HTTPStatus(error.status_code).name.lower())
        return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


def invalid(error: RequestValidationError) -> Invalid:
    """FastAPI's error as a refusal: the place without FastAPI's word for the part of the request."""
    return Invalid(in_words([{**each, "loc": each["loc"][1:]} for each in error.errors()]))
