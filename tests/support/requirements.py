"""What tests need of the machine beyond the locked packages: servers, command-line tools, a locale.

Without it a test is skipped with the reason. With REQUIRE_ALL set, as `make test-all` sets it, the test fails instead.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]


def _is_recent_kubectl(path: str) -> bool:
    """True from version 1.30 on: an older one renders the manifests differently."""
    version = subprocess.run([path, "version", "--client"], capture_output=True, text=True, check=False).stdout
    return re.search(r"Client Version: v1\.[3-9]\d", version) is not None


def _newest_first(folders: list[Path]) -> tuple[str, ...]:
    """Folders named VERSION/bin."""
    return tuple(str(folder) for folder in sorted(folders, key=lambda folder: int(folder.parent.name), reverse=True))


@dataclass(frozen=True)
class Program:
    """A program: its names, how to install it, where it is besides PATH, and a check of its version."""

    names: tuple[str, ...]
    install: str
    folders: tuple[str, ...] = ()
    accepts: Callable[[str], bool] = lambda path: True


POSTGRES = _newest_first([*Path("/usr/lib/postgresql").glob("*/bin")])
PROGRAMS = {
    "initdb": Program(("initdb",), "apt-get install postgresql", POSTGRES),
    "pg_ctl": Program(("pg_ctl",), "apt-get install postgresql", POSTGRES),
    "redis-server": Program(("redis-server", "valkey-server"), "apt-get install redis-server"),
    "nginx": Program(("nginx",), "apt-get install nginx", ("/usr/sbin",)),
    "chromium": Program(("chromium", "chromium-browser", "google-chrome"), "apt-get install chromium"),
    "prometheus": Program(("prometheus",), "apt-get install prometheus"),
    "promtool": Program(("promtool",), "apt-get install prometheus"),
    "alertmanager": Program(("alertmanager", "prometheus-alertmanager"), "apt-get install prometheus-alertmanager"),
    "amtool": Program(("amtool",), "apt-get install prometheus-alertmanager"),
    "kubectl": Program(("kubectl",), "make render", (f"{ROOT}/.cache/kubectl",), _is_recent_kubectl),
    "checkov": Program(("checkov",), "make scan", (f"{ROOT}/.cache/checkov/bin",)),
}


def need(name: str) -> str:
    """The path of a program of `PROGRAMS`; without it the test is skipped, or fails."""
    return find(name) or missing(f"{name} is not installed", PROGRAMS[name].install)


def need_locale(name: str) -> None:
    """Skip the test, or let it fail, unless the machine has the locale, written as tr_TR.UTF-8."""
    listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.splitlines()
    if name.lower().replace("-", "") not in {each.lower().replace("-", "") for each in listed}:
        missing(f"there is no locale {name}", "make test-servers")


@cache
def find(name: str) -> str | None:
    """The path of a program of `PROGRAMS`, or None."""
    program = PROGRAMS[name]
    path = os.pathsep.join([*program.folders, os.environ.get("PATH", os.defpath)])
    found = filter(None, (shutil.which(each, path=path) for each in program.names))
    return next(filter(program.accepts, found), None)


def missing(what: str, install: str) -> NoReturn:
    """Skip the test, or let it fail with REQUIRE_ALL set."""
    reason = f"{what}; run: {install}"
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(reason)
    # A module may need it while it is collected: then all of its tests are skipped.
    pytest.skip(reason, allow_module_level=True)
