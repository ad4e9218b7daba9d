"""One command in a process of its own: how long it took, and the most memory that it held."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

REPEATS = 3
CHEAP_S = 20
"""What takes longer than this is run once."""
MEMORY_LIMIT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
"""Bytes that a process may allocate: half of the machine, so that a case that is too large fails alone."""


@dataclass(frozen=True)
class Run:
    """What one or several runs of a command took: medians, but the peak is the largest.

    `problem` is empty, `over … s`, or the last line of a command that failed. `peak_mb` counts the processes that it started too,
    the largest of them.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    out: str = ""
    err: str = ""
    problem: str = ""


def churn(*words: str) -> list[str]:
    """The command line of `churn` in this interpreter."""
    return [sys.executable, "-m", "churn", *words]


def module(name: str, *words: str) -> list[str]:
    """The command that runs a module of this project with this Python."""
    return [sys.executable, "-m", name, *words]


def run(command: Sequence[str], *, cwd: Path, timeout_s: float) -> Run:
    """Run a command to its end, or kill it with all that it started after `timeout_s`."""
    with TemporaryDirectory() as folder:
        out, err, report = (Path(folder) / name for name in ("out", "err", "report"))
        with out.open("w") as to_out, err.open("w") as to_err:
            launcher = [sys.executable, "-S", __file__, str(report), str(timeout_s), *command]
            subprocess.run(launcher, cwd=cwd, env=_environment(), stdout=to_out, stderr=to_err, check=True)
        used = json.loads(report.read_text())
        code, printed, complained = used.pop("code"), out.read_text(), err.read_text()
    over = f"over {timeout_s:g} s" if code == -signal.SIGKILL and used["wall_s"] >= timeout_s else ""
    last = ["", *filter(None, map(str.strip, (printed + complained).splitlines()))][-1]
    return Run(**used, out=printed, err=complained, problem=over or (f"failed ({code}): {last[:200]}" if code else ""))


def launch(report: Path, timeout_s: float, command: Sequence[str]) -> None:
    """Run the command and write down what it used.

    This is a small process of its own, because the kernel counts the memory of the parent process in a new process.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    began = time.perf_counter()
    process = subprocess.Popen(command, start_new_session=True)
    killer = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    figures = {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    report.write_text(json.dumps(figures | {"code": process.returncode}))


def repeat(command: Sequence[str], *, cwd: Path, timeout_s: float, repeats: int = REPEATS) -> Run:
    """Run a command `repeats` times, or once if it takes longer than `CHEAP_S` or has a problem."""
    runs = [run(command, cwd=cwd, timeout_s=timeout_s)]
    while len(runs) < repeats and runs[0].wall_s < CHEAP_S and not runs[-1].problem:
        runs.append(run(command, cwd=cwd, timeout_s=timeout_s))
    return together(runs)


def together(runs: Sequence[Run]) -> Run:
    """Several runs of one command as one."""
    last = runs[-1]
    return Run(
        wall_s=median(each.wall_s for each in runs),
        cpu_s=median(each.cpu_s for each in runs),
        peak_mb=max(each.peak_mb for each in runs),
        out=last.out,
        err=last.err,
        problem=last.problem,
    )


def _environment() -> dict[str, str]:
    """This process' own, without what would point the project at another place."""
    foreign = ("CHURN_", "MLFLOW_", "AWS_", "DVC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "1",
        # The last simulated months may be over, and the contract's horizon after them not.
        "CHURN_LABEL_HORIZON_S": "1",
    }


if __name__ == "__main__":
    launch(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
