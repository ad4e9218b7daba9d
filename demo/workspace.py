"""A copy of the project to play in, and the processes that run there."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from churn import paths
from churn.errors import ChurnError
from churn.pipeline.workspace import CODE, LOCK, lay
from churn.settings import Settings

ROOT = Path(__file__).parents[1]
PROGRAMS = ("monitoring", "serving")
STOP_S = 30


class DemoError(ChurnError):
    """The demonstration cannot go on."""


@dataclass(frozen=True)
class Workspace:
    """A folder with the project in it. Commands run there with the settings in `environment`; nothing outside is changed."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, *words: str, log: Path | None = None, on_line: Callable[[str], None] = lambda line: None) -> None:
        """Run to the end; every line that it prints goes to `on_line`, and to the file `log`.

        Raises:
            DemoError: it failed; its last lines.
        """
        lines: list[str] = []
        with subprocess.Popen(
            words, cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:
                lines.append(line)
                on_line(line)
        if log:
            log.write_text("".join(lines))
        if process.returncode:
            last = " | ".join("".join(lines).strip().splitlines()[-3:])
            raise DemoError(f"`{' '.join(words)}` ended with exit code {process.returncode}: {last}")

    @contextmanager
    def process(self, *words: str, log: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A process that runs while the block does; what it prints goes to the file `log`."""
        with (self.folder / log).open("wb") as output:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self._environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def require_running(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        """Check that a process, whose output is in the file `<name>.log`, has not ended.

        Raises:
            DemoError: it has; its last line, as that its port is in use.
        """
        if process.poll() is not None:
            log = self.folder / f"{name}.log"
            last = log.read_text().strip().rpartition("\n")[2]
            raise DemoError(f"the {name} ended by itself: {last}; its log is {log}")

    @property
    def settings(self) -> Settings:
        """Where its log and its registry are."""
        return Settings(events=str(self.folder / "data/events"), MLFLOW_TRACKING_URI=f"sqlite:///{self.folder}/mlflow.db")

    @property
    def _environment(self) -> dict[str, str]:
        # What the user set for the real system must not reach this one.
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CHURN_", "MLFLOW_", "AWS_"))}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return (
            own
            | {"PATH": programs, "PYTHONPATH": str(self.folder / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}
            | {"PYTHONUNBUFFERED": "1"}
            | dict(self.environment)
        )


def made(folder: Path, environment: Mapping[str, str]) -> Workspace:
    """A fresh copy of this project in `folder`, in place of an earlier one."""
    if folder.exists() and not (folder / "dvc.yaml").exists() and any(folder.iterdir()):
        raise DemoError(f"{folder}: is not a workspace of an earlier demonstration; name another folder, or remove it")
    shutil.rmtree(folder, ignore_errors=True)
    lay(ROOT, folder, rows=True)
    for name in PROGRAMS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return Workspace(folder, environment)


def differences() -> list[str]:
    """The files of what is played that differ from the project's commit; empty where there is no git."""
    played = (*CODE, str(LOCK), *PROGRAMS, str(paths.RAW))
    try:
        done = subprocess.run(
            ["git", "status", "--porcelain", "--", *played], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return [line[3:] for line in done.stdout.splitlines()]


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
