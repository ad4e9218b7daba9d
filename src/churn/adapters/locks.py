"""The lock of a workspace: one process at a time writes data/raw or runs the pipeline there."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from churn.errors import ConfigError

log = logging.getLogger(__name__)


@contextmanager
def workspace_lock() -> Iterator[None]:
    """Hold the lock of the current folder; waits while another process holds it.

    It is an advisory lock on the folder itself, as `flock .` takes it: the kernel frees it when its process ends, however it
    ends. It is not reentrant. Which file systems it works on across machines is in docs/operations.md.

    Raises:
        ConfigError: the file system has no such locks.
    """
    folder = os.open(".", os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another run is at work in this workspace: waiting for its end")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError as error:
            raise ConfigError(
                f"{Path.cwd()}: the folder cannot be locked ({error.strerror}); put the workspace on a file system with locks "
                "on folders: a local disk, a block volume, CephFS"
            ) from error
        yield
    finally:
        os.close(folder)
