"""A small server that retrains on request: the watcher's webhook calls it where the pipeline is in another container.

`POST /retrainings` with `{"name": …, "evidence": …}` starts `churn retrain` once per name; `GET /retrainings/NAME` returns its
status; `GET /healthz`. Both others ask for the token.
"""

import hmac
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from churn import cli
from churn.adapters.bundle import unique_keys
from churn.adapters.ports import listener
from churn.errors import ConfigError, RetrainError
from churn.settings import Monitoring, load_monitoring
from monitoring.triggers.command import NAME, Command

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

RUNS = Path("runs")
"""What each run printed, and how it ended."""
RETRAIN = (sys.executable, "-m", "churn", "retrain")
MAX_BODY_BYTES = 2**20


def serve(settings: Monitoring, host: str, port: int) -> None:
    """Listen until SIGTERM; a retraining under way goes on to its end by itself.

    Raises:
        ConfigError: there is no token, without which anybody could start retrainings; or the port is in use.
    """
    if not settings.trigger_token:
        raise ConfigError("environment: CHURN_TRIGGER_TOKEN is empty; the runner needs the token that the watcher sends")
    import uvicorn

    own = listener(host, port, "pass another by --port")
    app = application(Command(RETRAIN, RUNS), settings.trigger_token)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[own])


def application(command: Command, token: str) -> "Starlette":
    """The routes over one command."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    def refused(request: "Request") -> bool:
        given = request.headers.get("authorization", "").encode()
        return not hmac.compare_digest(given, f"Bearer {token}".encode())

    def respond(code: int, **values: str) -> "Response":
        return JSONResponse(values, code)

    async def start(request: "Request") -> "Response":
        if refused(request):
            return respond(401, detail="no known token; send CHURN_TRIGGER_TOKEN as `Authorization: Bearer …`")
        if int(request.headers.get("content-length") or MAX_BODY_BYTES + 1) > MAX_BODY_BYTES:
            return respond(413, detail=f"send a Content-Length of at most {MAX_BODY_BYTES} bytes")
        found = _asked(await request.body())
        if isinstance(found, str):
            return respond(422, detail=found)
        name, evidence = found
        if (running := await run_in_threadpool(command.running)) and running != name:
            return respond(409, detail=f"{running} is running; try again when it has ended")
        try:
            await run_in_threadpool(command.start, name, evidence)
        except RetrainError as error:
            log.warning("%s", error)
            return respond(503, detail=str(error))
        return respond(202, name=name, status=command.status(name))

    async def status(request: "Request") -> "Response":
        if refused(request):
            return respond(401, detail="no known token; send CHURN_TRIGGER_TOKEN as `Authorization: Bearer …`")
        name = request.path_params["name"]
        found = command.status(name) if NAME.fullmatch(name) else "unknown"
        return respond(404 if found == "unknown" else 200, name=name, status=found)

    async def healthz(request: "Request") -> "Response":
        return PlainTextResponse("alive\n")

    return Starlette(
        routes=[
            Route("/retrainings", start, methods=["POST"]),
            Route("/retrainings/{name}", status),
            Route("/healthz", healthz),
        ]
    )


def _asked(body: bytes) -> tuple[str, dict[str, Any]] | str:
    """The name and the evidence, or what is wrong with them."""
    try:
        parsed = json.loads(body, object_pairs_hook=unique_keys)
    except ValueError:
        return "the body is not JSON, or has a key twice in one object"
    match parsed:
        case {"name": str(name), "evidence": dict(evidence)} if NAME.fullmatch(name):
            return name, evidence
        case _:
            return 'the body must be {"name": small letters, digits and "-", at most 63; "evidence": an object}'


def main(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8002,
) -> None:
    """Retrain whenever the watcher's webhook says so (POST /retrainings, with CHURN_TRIGGER_TOKEN), once per name."""
    serve(load_monitoring(), host, port)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    cli.run(app)
