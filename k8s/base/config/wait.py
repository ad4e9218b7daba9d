"""Waits until what the named variables are the URLs of can be reached: `python wait.py MLFLOW_TRACKING_URI CHURN_SOURCE …`.

At the first apply everything starts at once, and a network policy takes effect a moment after the pod that it lets through has
started: what is refused then is no failure of the work that comes next. `…_FILE` names a file with the URL, as everywhere.
"""

import os
import socket
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

WAIT_S = 1800
"""For all together. A Job that is refused so long has another attempt, or fails."""
EVERY_S = 2.0
ANSWER_S = 5.0
PORTS = {"https": 443, "mysql": 3306, "postgresql": 5432, "redis": 6379, "rediss": 6379}
"""Scheme, without its driver → the port of a URL that names none."""


def main() -> int:
    """Wait, and say for what; 1 if it cannot be reached."""
    end = time.monotonic() + WAIT_S
    for name in sys.argv[1:]:
        while refused := refusal(address(name)):
            print(f"{name}: {refused}", flush=True)
            if time.monotonic() > end:
                return 1
            time.sleep(EVERY_S)
    return 0


def address(name: str) -> str:
    """The URL in the variable, or in the file that its namesake names; empty if there is none."""
    file = Path(os.environ.get(f"{name}_FILE", ""))
    return os.environ.get(name) or (file.read_text().strip() if file.is_file() else "")


def refusal(url: str) -> str:
    """Why no server answers there, without the URL's password; empty if one does, or if the URL names no server."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme.partition("+")[0])
    except ValueError:
        return ""  # the program that uses it reports what is wrong
    try:
        if parts.scheme == "http":
            urlopen(url, timeout=ANSWER_S).close()
        elif host and port:
            socket.create_connection((host, port), ANSWER_S).close()
    except HTTPError as error:
        return f"{host} answers {error.code}" if error.code >= 500 else ""
    except OSError as error:
        return f"{host}: {error}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
