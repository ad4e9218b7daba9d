"""Looks at a system from outside, by HTTP, be it in Compose or in a cluster. It needs the standard library alone."""

import json
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from typing import Any

PATIENCE_S = 90
"""How long a part may take to show what it was just given: Prometheus scrapes every 15 s."""
TIMEOUT_S = 10


class Failed(Exception):  # noqa: N818 - what is said is a result
    """What is not as it should be."""


def run_command(program: str, commands: dict[str, Callable[[], None]], usage: str | None) -> int:
    """Run the command that the one argument names; what fails is one line and exit code 1, another argument the usage and 2."""
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        print(usage, file=sys.stderr)
        return 2
    try:
        commands[sys.argv[1]]()
    except (Failed, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0


def print_done(text: str) -> None:
    """Print what was proved."""
    print(f"ok  {text}", flush=True)


def example(document: Any) -> dict[str, Any]:
    """The customer that the API's own document shows."""
    columns = document["components"]["schemas"]["Customer"]["properties"]
    return {name: column["examples"][0] for name, column in columns.items()}


def eventually(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something.

    Raises:
        Failed: it did not come.
    """
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise Failed(f"waited {PATIENCE_S} s for {what}")
        time.sleep(1)


def ask(url: str, headers: dict[str, str], body: Any = None) -> Any:
    """The JSON that a URL answers; a POST where there is a body.

    Raises:
        Failed: the answer is not 2xx.
    """
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Failed(f"{url}: answered {error.code}: {error.read(300).decode(errors='replace')}") from error


def status_of(url: str, headers: dict[str, str], body: Any = None) -> int:
    """The status of a GET, or of a POST where there is a body."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def basic(user: str, password: str) -> dict[str, str]:
    """The header of HTTP's basic authentication."""
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
