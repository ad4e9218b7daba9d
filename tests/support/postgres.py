"""A PostgreSQL server that tests start."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ports import free_port
from requirements import need


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty PostgreSQL database, whose password is checked."""
    home = Path(tempfile.mkdtemp(prefix="pg"))
    data, password, port = home / "data", home / "password", free_port()
    password.write_text("s3cret")
    shutil.chown(home, **_owner())
    options = f"-c fsync=off -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home}"
    try:
        _run("initdb", "-D", data, "-U", "churn", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync")
        _run("pg_ctl", "start", "-w", "-D", data, "-l", home / "log", "-o", options)
        yield f"postgresql://churn:s3cret@127.0.0.1:{port}/postgres"
        _run("pg_ctl", "stop", "-m", "immediate", "-D", data)
    finally:
        shutil.rmtree(home)


def _run(program: str, *arguments: str | Path) -> None:
    """Run one of PostgreSQL's programs, not as root, which it refuses."""
    command = [need(program), *arguments]
    # From /, because the server's user may not be allowed into this folder.
    done = subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, **_owner())
    if done.returncode:
        pytest.fail(f"{program}: {done.stderr}")


def _owner() -> dict[str, Any]:
    """Who owns the server's files and processes: the system's PostgreSQL user if these tests run as root."""
    if os.getuid():
        return {"user": os.getuid(), "group": os.getgid()}
    import pwd

    names = {each.pw_name for each in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid}
