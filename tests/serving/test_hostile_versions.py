"""Malicious models with a valid digest are refused, and swaps and rollbacks still work."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from churn.adapters import bundle
from served import Releases, Running, Serve
from serving.versions import isolated
from serving.versions.isolated import Failed, Interrupted
from swaps import command, load, wait_for

GIB = 2**30

pytestmark = [pytest.mark.reported, pytest.mark.slow]


def graph(nodes: list[Any], initializers: list[Any]) -> Any:
    """A function that writes a model of these nodes in the place of a bundle's own."""
    import onnx
    from onnx import TensorProto, helper

    def write(folder: Path) -> None:
        width = onnx.load(folder / bundle.MODEL).graph.input[0].type.tensor_type.shape.dim[1].dim_value
        made = helper.make_graph(
            nodes,
            "hostile",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
            initializers,
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        (folder / bundle.MODEL).write_bytes(model.SerializeToString())

    return write


def endless() -> Any:
    """A model that loops for ever."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going_on"], ["still_going_on"]),
            helper.make_node("Softmax", ["before"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [None, 2]),
        ],
        [
            helper.make_tensor_value_info("still_going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [None, 2]),
        ],
    )
    constants = {"times": np.int64(2**62), "always": np.array(True), "columns": np.array([0, 1])}
    return graph(
        [
            helper.make_node("Gather", ["features", "columns"], ["two"], axis=1),
            helper.make_node("Loop", ["times", "always", "two"], ["probabilities"], body=body),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def greedy() -> Any:
    """A model that needs a gigabyte and more."""
    import numpy as np
    from onnx import helper, numpy_helper

    constants = {"wide": np.array([1, GIB // 4]), "columns": np.array([0, 1]), "axes": np.array([1])}
    return graph(
        [
            helper.make_node("Gather", ["features", "columns"], ["two"], axis=1),
            helper.make_node("ReduceSum", ["two", "axes"], ["one"]),
            helper.make_node("Expand", ["one", "wide"], ["many"]),
            helper.make_node("Gather", ["many", "columns"], ["probabilities"], axis=1),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def refused(server: Running) -> float:
    return server.metric("churn_model_swaps_refused_total")


@pytest.mark.parametrize("spoil", [endless, greedy])
def test_a_model_above_the_time_or_memory_limit_is_refused(spoil: Any, releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve(check_timeout_s="3").ready()
    memory = psutil.Process(server.process.pid).memory_info().rss

    with load(server, connections=2) as done:
        number = releases.release(seed=1, change=spoil())
        server.wait(lambda: refused(server) == 1)
        assert done.latest == {first}
        third = releases.release(seed=2)
        done.wait_for(third)
        assert command("rollback", tmp_path).returncode == 0
        done.wait_for(first)

    assert not done.failures
    assert any(line["message"].startswith(f"version {number} refused (") for line in server.logged())
    assert psutil.Process(server.process.pid).memory_info().rss - memory < 0.2 * GIB
    assert not psutil.Process(server.process.pid).children()


def test_a_rollback_does_not_wait_for_the_check_of_a_version(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve(check_timeout_s="3600").ready()
    wait_for(server, releases.release(seed=1))
    releases.release(seed=1, change=endless())
    server.wait(lambda: checks(server))

    done = command("rollback", tmp_path)

    assert done.stdout == f"version {first} serves now, whatever the registry says (1 worker)\n"
    assert server.version() == first
    assert not psutil.Process(server.process.pid).children()


def children() -> set[int]:
    """The child processes of this one: fixtures of the whole session may have some."""
    return {child.pid for child in psutil.Process().children()}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that `serving.versions.isolated` can run as `harmful`."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "harmful.py"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with SIGSEGV"),
        ("import os; os._exit(3)", "ended with exit code 3"),
        ("print('{')", "no result"),
        ("print('[1]')", "no result"),
        ("while True: pass", "more than 1 s"),
        ("import os; os.close(0); os.close(1); import time; time.sleep(3600)", "more than 1 s"),
    ],
)
def test_a_process_that_crashes_or_times_out_gives_a_reason(code: str, says: str, module: Path) -> None:
    module.write_text(code)
    before = children()

    with pytest.raises(Failed, match=says):
        isolated.run("harmful", {}, seconds=1, stop=lambda: False)

    assert children() == before


def test_a_cancelled_process_is_killed(module: Path) -> None:
    before = children()
    module.write_text("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)")

    with pytest.raises(Interrupted):
        isolated.run("harmful", {}, seconds=3600, stop=lambda: True)

    assert children() == before


def test_the_check_limits_its_memory_and_writes_no_core_file(module: Path) -> None:
    module.write_text(
        "import json, resource, sys; from serving.versions.check import limit; limit(300 << 20, 5, 0)\n"
        "try: bytearray(400 << 20)\n"
        "except MemoryError: print(json.dumps({'core': resource.getrlimit(resource.RLIMIT_CORE)[0]}))"
    )

    assert isolated.run("harmful", {}, seconds=30, stop=lambda: False) == {"core": "0"}


def test_a_check_has_lower_priority_than_requests(releases: Releases, serve: Serve) -> None:
    releases.release(change=endless())
    starting = serve(check_timeout_s="3600").alive()
    starting.wait(lambda: niceness(starting) == [0])
    starting.stop(signal.SIGKILL)

    releases.release(seed=1)
    serving = serve(check_timeout_s="3600").ready()
    releases.release(seed=2, change=endless())

    serving.wait(lambda: niceness(serving) == [5])


def niceness(server: Running) -> list[int]:
    """The niceness of the server's checks."""
    return [check.nice() for check in checks(server)]


def checks(server: Running) -> list[psutil.Process]:
    """The processes in which the server checks a version now."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "serving.versions.check" in child.cmdline():
                found.append(child)
    return found


def test_an_unexpected_polling_error_is_counted_and_the_next_poll_swaps(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release(seed=0)
    server = serve().ready()
    folder = tmp_path / "models"
    folder.rename(tmp_path / "moved")
    folder.write_text("a file where the folder was")
    second = releases.release(seed=1)

    server.wait(lambda: server.metric("churn_registry_failures_total") + server.metric("churn_model_swap_errors_total") >= 1)

    folder.unlink()
    wait_for(server, second)
    before = server.metric("churn_model_swap_loop_timestamp_seconds")
    server.wait(lambda: server.metric("churn_model_swap_loop_timestamp_seconds") > before)
    assert server.process.poll() is None
