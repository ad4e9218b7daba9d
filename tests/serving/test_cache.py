"""The last good versions stay on disk: for restarts, and for rolling back without the registry."""

import signal
from pathlib import Path

import pytest

from churn.adapters.mlflow import model_store
from served import Releases, Serve, customers
from serving.versions.cache import VersionCache
from serving.versions.swap import Swap
from swaps import FOREVER, SECRET, Away, command, hook, load, ready, wait_for

pytestmark = pytest.mark.slow


def test_the_number_of_cached_versions_is_limited(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    server = serve(kept_models="2", poll_s=FOREVER, webhook_secret=SECRET)
    for seed in range(4):
        number = releases.release(seed=seed)
        hook(server)
        wait_for(server, number)

    def kept() -> list[str]:
        return sorted(each.name.partition("-")[0] for each in (tmp_path / "models").iterdir() if each.is_dir())

    server.wait(lambda: kept() == ["3", "4"])
    assert server.version() == "4"


def test_only_leftovers_of_killed_processes_are_deleted_from_the_cache(releases: Releases, swap: Swap, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in (f".9-{'a' * 12}.4711", f"8-{'b' * 12}", "mine"):
        (models / name).mkdir()

    releases.release(seed=2)
    swap.poll()

    assert sorted(each.name[:2] for each in models.iterdir() if each.is_dir()) == ["1-", "2-", "mi"]


def test_a_corrupted_cached_version_is_not_served(releases: Releases, swap: Swap, tmp_path: Path) -> None:
    releases.release(seed=2)
    swap.poll()
    [newest] = (tmp_path / "models").glob("2-*")
    (newest / "model.onnx").write_bytes((newest / "model.onnx").read_bytes()[:-1])

    restarted = Swap(Away(), VersionCache(tmp_path / "models", 3), uri=releases.uri, poll_s=1)
    restarted.poll()

    assert restarted.current
    assert restarted.current.version == "1"
    assert not newest.exists()


def test_a_corrupted_cached_version_is_downloaded_again(releases: Releases, swap: Swap, tmp_path: Path) -> None:
    [kept] = (tmp_path / "models").glob("1-*")
    (kept / "golden.json").write_text("{}")
    store = model_store.connect(releases.uri, timeout_s=3)
    restarted = Swap(store, VersionCache(tmp_path / "models", 3), uri=releases.uri, poll_s=1)

    restarted.poll()
    restarted.poll()

    assert restarted.current
    assert restarted.current.version == "1"


@pytest.mark.parametrize("content", ["", "[]", "null", '{"names": 5}', '{"names": null}'])
def test_a_damaged_list_of_good_versions_does_not_prevent_the_start(
    content: str, releases: Releases, swap: Swap, tmp_path: Path
) -> None:
    (tmp_path / "models" / "good.json").write_text(content)
    store = model_store.connect(releases.uri, timeout_s=3)
    restarted = Swap(store, VersionCache(tmp_path / "models", 3), uri=releases.uri, poll_s=1)

    restarted.poll()

    assert restarted.current


def test_workers_can_share_a_cache(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = ready(serve(workers="3"), 3)

    with load(server, connections=6) as done:
        for seed in range(1, 5):
            number = releases.release(seed=seed)
            done.wait_for(number)

    assert not done.failures
    assert server.metric("churn_model_swaps_refused_total") == 0
    assert server.metric("churn_registry_failures_total") == 0


def test_a_rollback_is_one_command_and_needs_no_registry(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    second = releases.release(seed=1)
    wait_for(server, second)
    database = releases.folder / "mlflow.db"
    database.rename(tmp_path / "away.db")

    done = command("rollback", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"version {first} serves now, whatever the registry says (1 worker)\n"
    assert server.version() == first
    assert server.http.get("/model").json()["pinned"]
    # It holds when the registry is back, and after a restart.
    (tmp_path / "away.db").rename(database)
    server.stop()
    server = serve().ready()
    assert server.version() == first
    done = command("resume", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"version {second} serves, as the registry says (1 worker)\n")
    assert server.version() == second
    assert not server.http.get("/model").json()["pinned"]


@pytest.mark.reported
def test_rollback_and_resume_are_logged(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    wait_for(server, second := releases.release(seed=1))
    logged = len(server.logged())

    assert command("rollback", tmp_path).returncode == 0
    releases.promote(first)  # what serves stays the same
    assert command("resume", tmp_path).returncode == 0

    lines = [line["message"] for line in server.logged()[logged:] if line["logger"] == "serving.versions.swap"]
    switched, rolled_back, resumed = lines
    assert switched.startswith(f"version {first} serves: rolled back by hand")
    assert rolled_back == f"rollback by hand to version {first}: version {first} serves"
    assert resumed == f"the registry is followed again: version {first} serves"
    assert second != first


@pytest.mark.reported
def test_a_refused_rollback_is_logged_with_its_reason(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    wait_for(server, second := releases.release(seed=1))
    (kept,) = (tmp_path / "models").glob(f"{first}-*")
    (kept / "golden.json").write_text("{}")

    assert command("rollback", tmp_path).returncode == 1

    (line,) = [line for line in server.logged() if line["message"].startswith(f"rollback by hand to version {first}: ")]
    assert line["level"] == "WARNING"
    assert f"version {second} serves: golden.json" in line["message"]


def test_a_rollback_applies_to_every_worker(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = ready(serve(workers="2"), 2)
    with load(server) as done:
        second = releases.release(seed=1)
        done.wait_for(second)

        output = command("rollback", tmp_path).stdout

        done.wait_for(first)
    assert not done.failures
    assert output == f"version {first} serves now, whatever the registry says (2 workers)\n"


def test_a_rollback_does_not_wait_for_a_killed_worker(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    serve().ready().stop(signal.SIGKILL)
    server = serve().ready()
    wait_for(server, releases.release(seed=1))

    done = command("rollback", tmp_path)

    assert done.stdout == f"version {first} serves now, whatever the registry says (1 worker)\n"
    assert len([*(tmp_path / "models").glob("worker-*.lock")]) == 1


def test_a_rollback_without_a_server_applies_at_the_next_start(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    wait_for(server, releases.release(seed=1))
    server.stop()

    done = command("rollback", tmp_path)

    assert done.returncode == 1
    assert "no server that shares" in done.stderr
    assert serve().ready().version() == first


@pytest.mark.reported
def test_a_rollback_to_a_damaged_version_is_refused_without_a_change(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    second = releases.release(seed=1)
    wait_for(server, second)
    (kept,) = (tmp_path / "models").glob(f"{first}-*")
    (kept / "golden.json").write_text('{"churn_probabilities": [1e999]}')

    done = command("rollback", tmp_path)

    assert done.returncode == 1
    assert f"nothing was rolled back: version {first} is refused: golden.json has SHA-256" in done.stderr
    assert done.stderr.endswith(f"version {second} goes on\n")
    assert server.version() == second
    server.wait(lambda: not server.http.get("/model").json()["pinned"])


@pytest.mark.reported
def test_a_second_rollback_returns_to_an_earlier_version(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    for seed in (1, 2):
        wait_for(server, releases.release(seed=seed))
    assert command("rollback", tmp_path).returncode == 0

    done = command("rollback", tmp_path)

    assert done.stdout.startswith(f"version {first} serves now")
    assert server.version() == first
    assert "keeps no version before" in command("rollback", tmp_path).stderr


@pytest.mark.reported
def test_a_refused_rollback_keeps_the_previous_pin(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    wait_for(server, second := releases.release(seed=1))
    wait_for(server, releases.release(seed=2))
    assert command("rollback", tmp_path).returncode == 0
    (kept,) = (tmp_path / "models").glob(f"{first}-*")
    (kept / "golden.json").write_text("{}")

    done = command("rollback", tmp_path)

    assert done.returncode == 1
    assert done.stderr.endswith(f"version {second} goes on\n")
    assert server.http.get("/model").json()["pinned"]
    assert server.version() == second


def test_a_resume_without_the_registry_names_the_serving_version(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    wait_for(server, releases.release(seed=1))
    assert command("rollback", tmp_path).returncode == 0
    (releases.folder / "mlflow.db").rename(tmp_path / "away.db")

    done = command("resume", tmp_path)

    assert done.returncode == 1
    assert f"nothing is pinned, but version {first} serves: model registry" in done.stderr
    assert server.version() == first


def test_a_rollback_before_a_second_version_is_refused(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    serve().ready()

    done = command("rollback", tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("churn: ")
    assert "keeps no version before" in done.stderr
    assert done.stderr.count("\n") == 1


def test_moving_the_alias_back_is_a_rollback(releases: Releases, serve: Serve) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    second = releases.release(seed=1)
    wait_for(server, second)

    releases.promote(first)

    wait_for(server, first)
    assert server.predict(customers(1)).json()["model_version"] == first
