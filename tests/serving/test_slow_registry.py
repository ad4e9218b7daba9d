"""A registry that sends a byte now and then: it delays only the version that it sends."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from http_server import HttpServer
from registry_server import RegistryServer
from served import Releases, Running, Serve
from swaps import command, load, wait_for

pytestmark = [pytest.mark.reported, pytest.mark.slow]


@pytest.fixture
def answers(releases: Releases) -> RegistryServer:
    return RegistryServer(releases)


@pytest.fixture
def registry(answers: RegistryServer) -> Iterator[HttpServer]:
    with HttpServer(answers) as server:
        yield server


def wait_for_download(server: Running, registry: HttpServer, number: str) -> None:
    """Wait until the server has begun to download that version."""
    server.wait(lambda: any(f"/artifacts/{number}/" in request.path for request in registry.received))


def test_a_slow_download_times_out_and_the_next_version_is_served(
    releases: Releases, serve: Serve, registry: HttpServer, answers: RegistryServer
) -> None:
    first, second = releases.release(seed=0), releases.release(seed=1, promote=False)
    answers.dripping.add(second)
    server = serve(tracking_uri=registry.url, download_timeout_s="1").ready()

    with load(server, connections=2) as done:
        releases.promote(second)
        server.wait(lambda: server.metric("churn_registry_failures_total") >= 1)
        assert done.latest == {first}
        third = releases.release(seed=2)
        done.wait_for(third)

    assert not done.failures
    assert any("it took more than 1 s" in line["message"] for line in server.logged())


def test_a_rollback_does_not_wait_for_a_slow_download(
    releases: Releases, serve: Serve, registry: HttpServer, answers: RegistryServer, tmp_path: Path
) -> None:
    first = releases.release(seed=0)
    server = serve(tracking_uri=registry.url, download_timeout_s="3600").ready()
    wait_for(server, releases.release(seed=1))
    third = releases.release(seed=2, promote=False)
    answers.dripping.add(third)
    releases.promote(third)
    wait_for_download(server, registry, third)

    done = command("rollback", tmp_path)

    assert done.stdout == f"version {first} serves now, whatever the registry says (1 worker)\n"
    assert server.version() == first


def test_a_second_server_starts_with_the_cached_version_in_a_slow_download(
    releases: Releases, serve: Serve, registry: HttpServer, answers: RegistryServer
) -> None:
    first = releases.release(seed=0)
    server = serve(tracking_uri=registry.url, download_timeout_s="3600").ready()
    second = releases.release(seed=1, promote=False)
    answers.dripping.add(second)
    releases.promote(second)
    wait_for_download(server, registry, second)
    began = time.monotonic()

    other = serve(tracking_uri=registry.url, download_timeout_s="3600").ready()

    assert time.monotonic() - began < 10
    assert (server.version(), other.version()) == (first, first)
