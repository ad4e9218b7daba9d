"""Loads unchecked files in a process of its own: it can be slow, crash or be killed, and the server goes on.

The job goes in as JSON on standard input, the result comes back as JSON on standard output. It is a new interpreter, not a fork:
the server has threads.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
POLL_S = 0.05
"""How soon an interruption is noticed."""
KILL_S = 5
"""How long to wait for a process that was killed: on a file system that hangs it cannot end."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """The work was stopped: its result is no longer wanted."""


class Failed(Exception):  # noqa: N818 - says what happened
    """The process gave no result; the message says how it ended."""


def run(module: str, job: dict[str, Any], *, seconds: float, stop: Callable[[], bool]) -> dict[str, str]:
    """The result of `python -m module` for that job.

    Raises:
        Interrupted: `stop` returned True.
        Failed: it took more than so many seconds, crashed, or gave something else than a result.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        out = _communicate(process, json.dumps(job).encode(), seconds, stop)
    finally:
        _end(process)
    if process.returncode:
        how = signal.Signals(-process.returncode).name if process.returncode < 0 else f"exit code {process.returncode}"
        raise Failed(f"its process ended with {how}")
    try:
        result = json.loads(out)
        return {str(key): str(value) for key, value in result.items()}
    except (ValueError, AttributeError) as error:
        raise Failed("its process gave no result") from error


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # It counts nothing: its metrics would stay in the folder for good.
    return {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"} | own


def _communicate(process: "subprocess.Popen[bytes]", text: bytes | None, seconds: float, stop: Callable[[], bool]) -> bytes:
    end = time.monotonic() + seconds
    while True:
        try:
            return process.communicate(text, timeout=POLL_S)[0]
        except subprocess.TimeoutExpired:
            text = None  # is sent by the first call, also when that did not end
        if stop():
            raise Interrupted
        if time.monotonic() > end:
            raise Failed(f"it took more than {seconds:g} s")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    try:
        process.communicate(timeout=KILL_S)
    except subprocess.TimeoutExpired:
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
