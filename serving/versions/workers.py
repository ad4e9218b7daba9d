"""The servers' worker processes that share a folder of versions: which of them live, and what each one serves."""

import fcntl
import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from churn.adapters.files import write_json


@dataclass(frozen=True)
class State:
    """What a worker serves: the version's number (empty: none), and what it made of the last pin.

    `pin` is the token of the pin that it has acted on, empty where it follows the registry; `problem` why it could not, if so.
    """

    serves: str
    pin: str
    problem: str


class Worker:
    """This process among the workers. Its lock file is locked as long as it lives; its state file says what it serves."""

    def __init__(self, folder: Path) -> None:
        # In containers that share the folder, processes have the same numbers.
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._folder = folder
        self._lock: int | None = None
        self._reported: State | None = None

    @property
    def work(self) -> Path:
        """A folder for unfinished versions that is this worker's alone; a dead worker's is deleted by `clear_dead`."""
        return self._folder / f".work-{self._name}"

    def join(self) -> None:
        """Be among the workers, if it is not yet."""
        if self._lock is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / f"worker-{self._name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def report(self, state: State) -> None:
        """Write down what it serves."""
        if state != self._reported:
            write_json(asdict(state), self._folder / f"worker-{self._name}.json")
            self._reported = state

    def leave(self) -> None:
        """Be no longer among them."""
        if self._lock is not None:
            _clear(self._folder, self._name)
            os.close(self._lock)
            self._lock = None


def live(folder: Path) -> list[State | None]:
    """The states of the workers that live; None of one that has not reported yet."""
    return [_state(folder, name) for name in _names(folder) if _is_locked(folder / f"worker-{name}.lock")]


def clear_dead(folder: Path) -> None:
    """Delete what dead workers left behind. Workers must not come and go meanwhile: hold the folder's lock."""
    for name in _names(folder):
        if not _is_locked(folder / f"worker-{name}.lock"):
            _clear(folder, name)


def _names(folder: Path) -> list[str]:
    return [path.name.removeprefix("worker-").removesuffix(".lock") for path in sorted(folder.glob("worker-*.lock"))]


def _clear(folder: Path, name: str) -> None:
    shutil.rmtree(folder / f".work-{name}", ignore_errors=True)
    for ending in (".json", ".lock"):
        (folder / f"worker-{name}{ending}").unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _state(folder: Path, name: str) -> State | None:
    with suppress(OSError, ValueError, TypeError):
        return State(**json.loads((folder / f"worker-{name}.json").read_text()))
    return None
