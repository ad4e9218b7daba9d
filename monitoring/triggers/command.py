"""A retraining as a command on this machine, which outlives the watcher."""

import fcntl
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from churn.adapters.files import create_file
from churn.domain.reasons import reason
from churn.errors import RetrainError

log = logging.getLogger(__name__)

Status = Literal["running", "succeeded", "failed", "unknown"]

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RUN = 'echo began >>"$0" || exit; { "$@"; echo $? >>"$0"; } &'
"""What `sh` runs, with the lock file and the words of the command as arguments: it returns once the command has begun."""


@dataclass(frozen=True)
class Command:
    """Runs the words as one command, once per name.

    `<folder>/<name>.lock` is locked while the command runs; its lines are `began` and, at the end, the exit code. The command
    finds its name in RETRAIN_NAME and the evidence in the JSON file that RETRAIN_EVIDENCE names; what it prints is in
    `<folder>/<name>.log`.
    """

    words: tuple[str, ...]
    folder: Path

    def start(self, name: str, evidence: dict[str, Any]) -> None:
        """Start the command, unless it was begun before under that name."""
        if not NAME.fullmatch(name):
            raise ValueError(f"retraining {name!r}: small letters, digits and '-', at most 63; rename it")
        path, text = self._lock(name), json.dumps(evidence, indent=2, allow_nan=False)
        command = [self._program(), *self.words[1:]]
        with self._errors(name):
            create_file(path.with_suffix(".evidence.json"), text + "\n")
            while not _lines(path):
                with path.open("ab") as lock:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        time.sleep(0.01)  # another is about to begin, or to be killed before
                        continue
                    if not _lines(path):
                        self._run(command, path, lock.fileno())
        log.info("%s is started, or was before; its output is in %s/%s.log", name, self.folder, name)

    def status(self, name: str) -> Status:
        """How the command of that name stands. One that was killed before its exit code was written has failed."""
        path = self._lock(name)
        with self._errors(name):
            # Only a lock of what has begun is tested: to test it is to hold it, and another may be about to begin.
            if not _lines(path):
                return "unknown"
            # Before the exit code is read: the lock is free only after it is written.
            is_locked = _is_locked(path)
            _, *code = _lines(path)
        if code:
            return "succeeded" if code == ["0"] else "failed"
        return "running" if is_locked else "failed"

    def running(self) -> str:
        """The name of one that is running; empty if none is."""
        names = (path.stem for path in sorted(self.folder.glob("*.lock")))
        return next((name for name in names if self.status(name) == "running"), "")

    def _lock(self, name: str) -> Path:
        return self.folder.absolute() / f"{name}.lock"

    def _run(self, command: list[str], path: Path, lock: int) -> None:
        """Run the command, which keeps the lock as long as it or the shell lives; return once it has begun."""
        evidence, name = str(path.with_suffix(".evidence.json")), path.stem
        with path.with_suffix(".log").open("ab") as output:
            done = subprocess.run(
                ["/bin/sh", "-c", RUN, str(path), *command],
                env={**os.environ, "RETRAIN_NAME": name, "RETRAIN_EVIDENCE": evidence},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                start_new_session=True,  # what ends the watcher and its group is not for it
                check=False,
            )
        if done.returncode:
            raise RetrainError(f"{self.folder}/{name}: the command did not begin; read {name}.log, and check the folder")

    def _program(self) -> str:
        """Where the program is: on PATH, or beside this Python as `churn` is."""
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        if not (found := shutil.which(self.words[0], path=path)):
            raise RetrainError(
                f"environment: CHURN_TRIGGER_COMMAND: no program {self.words[0]!r} on PATH; install it, or correct the command"
            )
        return found

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RetrainError(
                f"{self.folder}/{name}: {error.strerror or reason(error)}; check the folder and its permissions"
            ) from error


def _lines(lock: Path) -> list[str]:
    """`began` and the exit code, as far as they are written."""
    return lock.read_text().split() if lock.exists() else []


def _is_locked(path: Path) -> bool:
    """True while a process holds the lock."""
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
