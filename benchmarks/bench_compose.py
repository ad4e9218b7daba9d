"""The stack from no volume to all healthy: how long, and how much memory; its images: how large, and how soon they answer.

`python benchmarks/bench_compose.py [--out FILE]` prints Markdown tables and writes JSON. It needs Docker, and uses a project and
ports of its own. Images are built before the clock starts; memory is the sum over all containers, looked at every second.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

from bench_pipeline import machine, rounded, table

Row = dict[str, Any]

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "results" / "compose.json"
PORTS = ("CHURN", "CHURN_MONITOR", "MLFLOW", "GRAFANA", "PROMETHEUS", "ALERTMANAGER", "EVIDENTLY")
FIRST_PORT = 38000
IMAGES = {
    "serve": (8000, {"CHURN_ANONYMOUS": "true"}),
    "train": (8002, {"CHURN_TRIGGER_TOKEN": "token"}),
    "monitor": (8001, {}),
}
"""Image → the port that it answers on, and what it needs to start."""
STARTS = 5
UNITS = {"B": 1e-6, "KiB": 2**10 / 1e6, "MiB": 2**20 / 1e6, "GiB": 2**30 / 1e6}


class Stack:
    """Compose with a project and ports of its own."""

    def __init__(self) -> None:
        command = run("make", "--no-print-directory", "-s", "compose-command")
        self._compose = [*shlex.split(command), "--project-name", "churn-bench"]
        ports = {f"{name}_PORT": str(FIRST_PORT + position) for position, name in enumerate(PORTS)}
        self._environment = os.environ | ports | {"COMPOSE": shlex.join(self._compose), "DOCKER_BUILDKIT": "1"}
        self._environment |= {"COMPOSE_DOCKER_CLI_BUILD": "1"}

    def compose(self, *words: str) -> str:
        """What Compose prints."""
        return run(*self._compose, *words, environment=self._environment)

    def up(self) -> None:
        """All healthy."""
        self.compose("up", "--detach")
        self.look("wait")

    def look(self, word: str) -> None:
        """`python -m ops.stack WORD`."""
        run(sys.executable, "-m", "ops.stack", word, environment=self._environment)


class Memory:
    """The most memory that all containers together took while the block ran, megabytes, and the most of each."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self.peaks: dict[str, float] = {}
        self._stop = threading.Event()

    def __enter__(self) -> "Memory":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1):
            lines = run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
            now = {name: _megabytes(used) for name, used, *_ in map(str.split, lines) if name.startswith("churn-bench")}
            self.peak_mb = max(self.peak_mb, sum(now.values()))
            for name, used in now.items():
                self.peaks[name] = max(self.peaks.get(name, 0.0), used)


def main() -> int:
    """Measure, print, write."""
    wanted = _arguments()
    stack = Stack()
    try:
        stack.compose("down", "--volumes")
        stack.compose("build")
        images, measured = [image(name) for name in IMAGES], whole(stack)
    finally:
        stack.compose("down", "--volumes")
    print("\n\n".join([images_table(images), stack_table(measured)]))
    found = {"machine": machine(), "images": images, "stack": measured}
    wanted.out.write_text(json.dumps(rounded(found), indent=2) + "\n")
    return 0


def whole(stack: Stack) -> list[Row]:
    """From nothing to healthy and proved; down and up again; the API alone."""
    with Memory() as memory:
        first = timed(stack.up)
        proved = timed(lambda: stack.look("smoke"))
        time.sleep(20)
        settled = sum(
            _megabytes(line.split()[1])
            for line in run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
            if line.startswith("churn-bench")
        )
    api = stack.compose("ps", "--quiet", "api").strip()

    def again() -> None:
        run("docker", "restart", "--time=0", api)
        answers(f"http://127.0.0.1:{FIRST_PORT}/readyz")

    ready = median(timed(again) for _ in range(STARTS))
    stack.compose("down")
    second = timed(stack.up)
    largest = sorted(memory.peaks.items(), key=lambda each: -each[1])[:3]
    return [
        {"what": "`docker compose up` to all healthy, from no volume (training included), s", "value": first},
        {"what": "`make smoke`, s", "value": proved},
        {"what": "`down`, then `up` to all healthy (nothing to train), s", "value": second},
        {"what": "the API's container restarted, to ready by its last good model, s", "value": ready},
        {"what": "peak memory of all containers, MB", "value": memory.peak_mb},
        {"what": "memory of all containers when all is quiet, MB", "value": settled},
        *({"what": f"peak memory of {name.split('_')[1]}, MB", "value": used} for name, used in largest),
    ]


def image(name: str) -> Row:
    """Size, layers, and the median time from `docker run` to the first answer of /healthz."""
    tag = f"churn-{name}:local"
    known = json.loads(run("docker", "image", "inspect", tag))[0]
    layers = [line for line in run("docker", "history", "--format", "{{.Size}}", tag).splitlines() if line != "0B"]
    return {
        "image": f"churn-{name}",
        "size_mb": known["Size"] / 1e6,
        "layers": len(known["RootFS"]["Layers"]),
        "code_mb": sum(_megabytes(each.replace("kB", "KiB").replace("MB", "MiB").replace("GB", "GiB")) for each in layers[:-2]),
        "cold_start_s": median(timed(lambda: start(tag, *IMAGES[name])) for _ in range(STARTS)),
    }


def start(tag: str, port: int, needed: dict[str, str]) -> None:
    """Run a container until it answers, then take it away."""
    given = [word for name, value in needed.items() for word in ("--env", f"{name}={value}")]
    hardened = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"]
    container = run("docker", "run", "--detach", *hardened, f"--publish=127.0.0.1:{FIRST_PORT + 50}:{port}", *given, tag).strip()
    try:
        answers(f"http://127.0.0.1:{FIRST_PORT + 50}/healthz")
    finally:
        run("docker", "rm", "--force", "--volumes", container)


def answers(url: str, within_s: float = 120) -> None:
    """Wait until the URL answers 200."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise TimeoutError(url)


def timed(work: Any) -> float:
    """How long it takes, seconds."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _megabytes(text: str) -> float:
    value, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()  # type: ignore[union-attr]
    return float(value) * UNITS[unit]


def images_table(rows: list[Row]) -> str:
    """The images by name."""
    cells = [
        (row["image"], f"{row['size_mb']:.0f}", str(row["layers"]), f"{row['code_mb']:.1f}", f"{row['cold_start_s']:.1f}")
        for row in rows
    ]
    return table(("image", "size, MB", "layers", "of it code, MB", "`docker run` to /healthz, s"), cells)


def stack_table(rows: list[Row]) -> str:
    """The stack's figures."""
    return table(
        ("", "measured"),
        [(row["what"], f"{row['value']:,.1f}" if row["value"] < 100 else f"{row['value']:,.0f}") for row in rows],
    )


def run(*words: str, environment: dict[str, str] | None = None) -> str:
    """What a command prints."""
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{shlex.join(words)}` ended with exit code {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
