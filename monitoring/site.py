"""What the watcher shows: `/metrics` for Prometheus, `/healthz`, and the reports of the windows at `/`."""

import html
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from churn.adapters.ports import listener
from churn.settings import Monitoring

log = logging.getLogger(__name__)

NAME = re.compile(r"\d{8}T\d{6}Z-v[^-]+-(short|long)")

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Churn: drift reports</title>
<style>body{{font:16px system-ui;max-width:60rem;margin:2rem auto}}td,th{{padding:.2rem .8rem;text-align:left}}</style>
<h1>Drift reports</h1><p>One for each window, the newest first. <a href="metrics">Metrics</a></p>
<table><tr><th>window ends</th><th>version</th><th>window</th><th></th></tr>{rows}</table></html>"""


def application(reports: Path) -> Starlette:
    """The pages over a folder of reports."""
    reports.mkdir(parents=True, exist_ok=True)

    async def index(request: Request) -> Response:
        names = sorted((each.stem for each in reports.glob("*.html") if NAME.fullmatch(each.stem)), reverse=True)
        return HTMLResponse(PAGE.format(rows="".join(map(_row, names)) or "<tr><td>none yet</td></tr>"))

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    routes = [Route("/", index), Route("/metrics", metrics), Route("/healthz", healthz)]
    app = Starlette(routes=[*routes, Mount("/reports", StaticFiles(directory=reports))])
    # A redirect for a slash too many would name the scheme and the host that this server sees, which a proxy's clients do not.
    app.router.redirect_slashes = False
    return app


def _row(name: str) -> str:
    end, version, window = (html.escape(part) for part in name.split("-", 2))
    links = " ".join(f'<a href="reports/{html.escape(name)}.{kind}">{kind.upper()}</a>' for kind in ("html", "json"))
    return f"<tr><td>{end}</td><td>{version}</td><td>{window}</td><td>{links}</td></tr>"


@contextmanager
def serve(settings: Monitoring) -> Iterator[str]:
    """Serve in a thread while the block runs, which gets the address.

    Raises:
        ConfigError: as `churn.adapters.ports.listener`.
    """
    host = settings.monitor_host
    own = listener(host, settings.monitor_port, "set CHURN_MONITOR_PORT")
    server = uvicorn.Server(uvicorn.Config(application(settings.reports), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
    thread.start()
    address = f"http://{f'[{host}]' if ':' in host else host}:{own.getsockname()[1]}"
    log.info("metrics and reports on %s", address)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(5)
