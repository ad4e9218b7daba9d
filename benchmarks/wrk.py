"""Load by wrk: the same few requests in turns, over a number of connections that are kept open."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from projects import BenchmarkError
from servers import HOST

TIMEOUT_S = 10

SCRIPT = """
local requests, turn = {}, 0
function init(arguments)
  for body in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""
"""Source: wrk's SCRIPTING file: times are in microseconds, `errors.status` counts the answers that are no 2xx or 3xx."""


@dataclass(frozen=True)
class Load:
    """What one run saw; `refused` requests got another answer than 2xx, `broken` ones none in time. Percentiles are of all."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def answered(self) -> int:
        """Requests with a good answer."""
        return self.requests - self.refused


def put(port: int, path: str, bodies: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Post the bodies in turns, one thread, for that long."""
    with TemporaryDirectory() as folder:
        script, lines = Path(folder) / "post.lua", Path(folder) / "bodies"
        script.write_text(SCRIPT)
        lines.write_bytes(b"\n".join(bodies) + b"\n")
        options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={TIMEOUT_S}s", "--latency", "-s", str(script)]
        command = ["wrk", *options, f"http://{HOST}:{port}{path}", "--", str(lines)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        raise BenchmarkError(f"wrk: exit code {done.returncode}: {done.stderr[-500:]}")
    return Load(**json.loads(done.stdout.splitlines()[-1]))


def version() -> str:
    """The version of the wrk that is installed.

    Raises:
        BenchmarkError: there is none.
    """
    if not shutil.which("wrk"):
        raise BenchmarkError("wrk is not installed; it is a system package: apt-get install wrk")
    # `wrk --version` exits with 1.
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else said.split("\n")[0]
