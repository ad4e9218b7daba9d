"""Runs a command once per name, whoever asks and however often: `python -m monitoring.triggers.once FOLDER NAME -- COMMAND…`.

In FOLDER, `NAME.lock` is locked while the command runs, `NAME.began` says that it was begun and stays, `NAME.log` has what
the command printed, and `NAME.ended` says how it ended. This returns as soon as the command is begun, here or by another; the
command goes on by itself.
"""

import fcntl
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from churn.adapters.files import write_json

NOT_RUN = 127
"""The exit code of a command that could not be run, as shells have it."""


def main(folder: Path, name: str, command: list[str]) -> None:
    """Run the command, if it was not begun before under that name.

    Raises:
        OSError: the folder cannot be written to.
    """
    with (folder / f"{name}.log").open("ab") as out:
        lock = _claimed(folder, name)
        if lock is None or os.fork():
            return
        # Whoever waits for what this prints need not wait for the command.
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(out.fileno(), sys.stderr.fileno())
    began = datetime.now(UTC)
    code = _run(command, lock)
    ended = {"exit_code": code, "began_at": began.isoformat(), "ended_at": datetime.now(UTC).isoformat()}
    write_json(ended, folder / f"{name}.ended")


def _claimed(folder: Path, name: str) -> int | None:
    """The descriptor of the lock, if this process is to run the command; None if it was begun already."""
    began = folder / f"{name}.began"
    lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    while not began.exists():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            began.touch(exist_ok=False)
        except BlockingIOError:
            time.sleep(0.01)  # another is about to begin, or to be killed before
        except FileExistsError:
            return None
        else:
            return lock
    return None


def _run(command: list[str], lock: int) -> int:
    """The exit code of the command, which keeps the lock as long as it runs, even if this process is killed."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, pass_fds=[lock], check=False).returncode
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_RUN


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[4:])
