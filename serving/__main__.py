"""`python -m serving` serves the production model; `… rollback` leaves the registry behind, `… resume` follows it again."""

import gc
import logging
import os
import resource
import signal
import sys
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from churn.adapters.ports import listener
from churn.adapters.startup import prepare_process
from churn.errors import ChurnError
from churn.settings import Serving, load_serving

if TYPE_CHECKING:
    from serving.versions.cache import VersionCache


OWN_FILES = 512
"""What a worker opens besides its connections, generously."""


def main() -> None:
    """Run the command line; a `ChurnError` is one line on standard error and exit code 1."""
    prepare_process()
    # Until uvicorn listens, and again when it has stopped and passes the signal on: the end is a good one.
    signal.signal(signal.SIGTERM, _leave)
    try:
        match sys.argv[1:]:
            case []:
                serve(load_serving())
            case ["rollback"]:
                from serving.versions import rollback

                print(rollback.roll_back(_cache(load_serving())))
            case ["resume"]:
                from serving.versions import rollback

                print(rollback.resume(_cache(load_serving())))
            case _:
                sys.exit(__doc__)
    except ChurnError as error:
        print(f"churn: {error}", file=sys.stderr)
        sys.exit(1)


def serve(settings: Serving) -> None:
    """Listen until SIGTERM or SIGINT."""
    log_as_json()
    _check_places(settings)
    _allow_connections(settings.max_connections)
    code: object = 0
    with TemporaryDirectory(prefix="churn-metrics-") as folder:
        if settings.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            _listen(settings)
        except SystemExit as end:
            code = end.code
    # Everything is written. An upload that hangs in object storage would keep the process for minutes more.
    os._exit(code if isinstance(code, int) else 0)


def _allow_connections(count: int) -> None:
    """Raise the soft limit of open files, which often is 1024, as far as this many connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _check_places(settings: Serving) -> None:
    """Refuse here what every worker would refuse: a worker that does not start is started again and again.

    And a port that is in use: the server library logs that with the number of the system's error, and no remedy.
    """
    from churn.adapters.events import log as events
    from churn.adapters.mlflow import model_store
    from churn.adapters.online_store import reader as online_store

    listener(settings.host, settings.port, "set CHURN_PORT").close()
    model_store.connect(settings.tracking_uri, timeout_s=1)
    online_store.connect(settings.online_store)
    events.open_sink(settings.events)


def _listen(settings: Serving) -> None:
    import uvicorn

    from serving.http.protocol import make_protocol

    uvicorn.run(
        "serving.__main__:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        http=make_protocol,  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,  # nothing asks who the client is
        timeout_graceful_shutdown=10,
    )


def application() -> object:
    """The ASGI application, made in the worker that runs it."""
    from serving.app import create_app

    log_as_json()
    # A thread that writes the log hands Python back to the requests ten times sooner than by default.
    sys.setswitchinterval(0.0005)
    app = create_app(load_serving())
    # What was made until now stays for good: the collector need not look at it again and again while requests wait.
    gc.collect()
    gc.freeze()
    # Requests leave no reference cycles but those of their errors and pages; ten times the default is rarely reached.
    gc.set_threshold(10_000, 10, 10)
    return app


def log_as_json() -> None:
    """One JSON object a line on standard error."""
    handler = logging.StreamHandler()
    fields = {"asctime": "time", "levelname": "level", "name": "logger"}
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields=fields,
            reserved_attrs=(*RESERVED_ATTRS, "color_message"),
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("serving", "churn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)


def _cache(settings: Serving) -> "VersionCache":
    from serving.versions.cache import VersionCache

    return VersionCache(settings.models, settings.kept_models)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
