"""Workspaces for watchers, and logs that many of them share."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from watching import HOUR, NOON, Origin, Workspace, reversed_outcomes

TEN_MINUTES: dict[str, Any] = {"window_s": 600, "long_window_s": 600}
"""Too short for 300 rows: drift, which takes seconds, is insufficient data; only performance, which takes none, decides."""


def without_feasts_metrics() -> None:
    """Feast, which a watcher does not import, lets all of a process's metrics be files, where gauges cannot be cleared."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


@pytest.fixture(scope="module", autouse=True)
def own_metrics() -> None:
    """Another file's tests may have imported Feast in between."""
    without_feasts_metrics()


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """Version 1 of the shipped data, in production."""
    without_feasts_metrics()
    return Origin.made(tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="session")
def failing(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A day of 300 customers an hour who do the opposite of what version 1 says, at noon of which two checks have warned."""
    workspace = Workspace.made(tmp_path_factory.mktemp("failing"), origin, **TEN_MINUTES)
    workspace.report(workspace.predict(NOON - 6 * HOUR, NOON + 18 * HOUR, 24 * 300), change=reversed_outcomes)
    for at in (NOON - HOUR, NOON):
        workspace.check(at + timedelta(minutes=1))
    return workspace


@pytest.fixture
def brink(failing: Workspace, tmp_path: Path) -> Workspace:
    """A copy of its own of `failing`: the next check, at 13:00, retrains."""
    return failing.copied(tmp_path)
