"""A retraining as a command on this machine, which outlives the watcher."""

import fcntl
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from churn.adapters.files import create_file
from churn.domain.reasons import reason
from churn.errors import RetrainError
from monitoring.triggers import once

log = logging.getLogger(__name__)

Status = Literal["running", "succeeded", "failed", "unknown"]

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
START_S = 60.0
"""How long the runner may take to begin: a new process on a busy machine."""


@dataclass(frozen=True)
class Command:
    """Runs the words as one command, without a shell, once per name; `monitoring.triggers.once` keeps the promise.

    The command finds its name in RETRAIN_NAME and the evidence in the JSON file that RETRAIN_EVIDENCE names; what it
    prints is in `<folder>/<name>.log`.
    """

    words: tuple[str, ...]
    folder: Path

    def start(self, name: str, evidence: dict[str, Any]) -> None:
        """Start the command, unless it was begun before under that name."""
        if not NAME.fullmatch(name):
            raise ValueError(f"retraining {name!r}: small letters, digits and '-', at most 63; rename it")
        file, text = self.folder.absolute() / f"{name}.evidence.json", json.dumps(evidence, indent=2, allow_nan=False)
        arguments = [str(self.folder.absolute()), name, "--", self._program(), *self.words[1:]]
        with self._refusals(name):
            create_file(file, text + "\n")
            done = subprocess.run(
                # -P: the modules beside once.py are not to be taken for others of their name.
                [sys.executable, "-P", once.__file__, *arguments],
                env={**os.environ, "RETRAIN_NAME": name, "RETRAIN_EVIDENCE": str(file)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_S,
                start_new_session=True,  # what ends the watcher and its group is not for it
                check=False,
            )
        if done.returncode:
            said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise RetrainError(f"{self.folder}/{name}: the command could not be started: {said}; check the folder")
        log.info("%s is started, or was before; its output is in %s/%s.log", name, self.folder, name)

    def status(self, name: str) -> Status:
        """How the command of that name stands. One that was killed with its runner has failed."""
        path = self.folder / name
        with self._refusals(name):
            if not Path(f"{path}.began").exists():
                return "unknown"
            # Before the end is looked for: the lock is free only after the end is written.
            is_locked = _is_locked(Path(f"{path}.lock"))
            ended = Path(f"{path}.ended")
            if ended.exists():
                return "failed" if json.loads(ended.read_text())["exit_code"] else "succeeded"
        return "running" if is_locked else "failed"

    def running(self) -> str:
        """The name of one that is running; empty if none is."""
        names = (each.name.removesuffix(".began") for each in sorted(self.folder.glob("*.began")))
        return next((name for name in names if self.status(name) == "running"), "")

    def _program(self) -> str:
        """Where the program is: on PATH, or beside this Python as `churn` is."""
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        if not (found := shutil.which(self.words[0], path=path)):
            raise RetrainError(
                f"environment: CHURN_TRIGGER_COMMAND: no program {self.words[0]!r} on PATH; install it, or correct the command"
            )
        return found

    @contextmanager
    def _refusals(self, name: str) -> Iterator[None]:
        try:
            yield
        except subprocess.TimeoutExpired:
            raise RetrainError(
                f"{self.folder}/{name}: the command did not begin within {START_S:g} s; check the folder"
            ) from None
        except OSError as error:
            raise RetrainError(
                f"{self.folder}/{name}: {error.strerror or reason(error)}; check the folder and its permissions"
            ) from error


def _is_locked(path: Path) -> bool:
    """True while a process holds the lock. Asking holds up nobody: only a command that has begun is asked about."""
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
