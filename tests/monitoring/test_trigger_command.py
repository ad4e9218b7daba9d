"""A retraining as a command: real processes, killed at every point."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from churn.errors import MonitorError, RetrainError
from churn.settings import Monitoring
from monitoring.triggers import command as module
from monitoring.triggers.command import Command, Status
from monitoring.triggers.trigger import Trigger, open_trigger, runs_folder

ROOT = Path(__file__).parents[2]
NAME = "retrain-v3-20261123t030000z"
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
WATCHER = """
import os, signal, subprocess, sys, threading
from pathlib import Path
from monitoring.triggers.command import Command

folder, name, starts, *words = sys.argv[1:]
command = Command(tuple(words), Path(folder))

def start():
    command.start(name, {"psi": 0.3})

def die():
    os.kill(os.getpid(), signal.SIGKILL)

"""
START = "sys.stdin.read(); threads = [threading.Thread(target=start) for _ in range(int(starts))]; [t.start() for t in threads]\n"
DIE_BEFORE = "subprocess.run = lambda *arguments, **options: die()\nstart()\n"
DIE_AFTER = """
def spawn_and_die(arguments, **options):
    del options["check"]
    subprocess.Popen(arguments, **options)
    die()

subprocess.run = spawn_and_die
start()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def counting(tmp_path: Path) -> tuple[str, ...]:
    """A command that leaves one line each time it runs."""
    return ("sh", "-c", f"echo ran >> {tmp_path}/ran; echo done")


def times_run(tmp_path: Path) -> int:
    ran = tmp_path / "ran"
    return len(ran.read_text().splitlines()) if ran.exists() else 0


def watcher(code: str, folder: Path, words: tuple[str, ...], *, starts: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WATCHER + code, str(folder), NAME, str(starts), *words],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(trigger: Trigger, name: str = NAME, *, within_s: float = 60) -> Status:
    """The status, once it is neither running nor on its way."""
    end = time.monotonic() + within_s
    while (status := trigger.status(name)) in ("running", "unknown") and time.monotonic() < end:
        time.sleep(0.02)
    return status


def parent(process: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(process)], capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def sleeper(folder: Path, tmp_path: Path) -> Iterator[tuple[Command, int, int]]:
    """A command that sleeps, with the process numbers of its runner and of itself."""
    pids = tmp_path / "pids"
    command = Command(("sh", "-c", f"echo $PPID $$ > {pids}.part; mv {pids}.part {pids}; exec sleep 600"), folder)
    command.start(NAME, {})
    while not pids.exists():
        time.sleep(0.02)
    runner, own = map(int, pids.read_text().split())
    yield command, runner, own
    for each in (runner, own):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def test_a_command_gets_its_name_and_evidence_and_its_output_is_logged(folder: Path) -> None:
    script = 'echo "$RETRAIN_NAME"; cat "$RETRAIN_EVIDENCE"; echo problem >&2'
    command = Command(("sh", "-c", script), folder)

    command.start(NAME, {"psi": 0.31})

    assert ended(command) == "succeeded"
    first, *evidence, last = (folder / f"{NAME}.log").read_text().splitlines()
    assert (first, json.loads("\n".join(evidence)), last) == (NAME, {"psi": 0.31}, "problem")


@pytest.mark.parametrize(("code", "status"), [(0, "succeeded"), (1, "failed"), (3, "failed")])
def test_the_status_follows_the_exit_code(folder: Path, code: int, status: Status) -> None:
    command = Command(("sh", "-c", f"exit {code}"), folder)

    command.start(NAME, {})

    assert ended(command) == status


def test_a_command_that_did_not_start_is_unknown(folder: Path) -> None:
    assert Command(("true",), folder).status(NAME) == "unknown"


def test_a_name_runs_once_and_each_name_runs(folder: Path, tmp_path: Path) -> None:
    command = Command(counting(tmp_path), folder)

    for _ in range(3):
        command.start(NAME, {})
    assert ended(command) == "succeeded"
    command.start(NAME, {})
    assert times_run(tmp_path) == 1

    command.start("retrain-v4-20261124t030000z", {})
    assert ended(command, "retrain-v4-20261124t030000z") == "succeeded"
    assert times_run(tmp_path) == 2


def test_the_evidence_of_the_first_start_stays(folder: Path) -> None:
    command = Command(("true",), folder)

    command.start(NAME, {"psi": 1})
    command.start(NAME, {"psi": 2})

    assert json.loads((folder / f"{NAME}.evidence.json").read_text()) == {"psi": 1}


def test_concurrent_starts_from_several_processes_run_the_command_once(folder: Path, tmp_path: Path) -> None:
    watchers = [watcher(START, folder, counting(tmp_path), starts=10) for _ in range(5)]

    with ThreadPoolExecutor(5) as pool:  # the end of the input starts them all
        errors = [error for _, error in pool.map(lambda each: each.communicate(), watchers)]

    assert errors == [""] * 5
    assert [each.returncode for each in watchers] == [0] * 5
    assert ended(Command((), folder)) == "succeeded"
    assert times_run(tmp_path) == 1


@pytest.mark.parametrize("code", [DIE_BEFORE, DIE_AFTER], ids=["before-spawn", "after-spawn"])
def test_a_watcher_killed_during_a_start_runs_the_command_once(code: str, folder: Path, tmp_path: Path) -> None:
    words = counting(tmp_path)
    first = watcher(code, folder, words)
    _, error = first.communicate()
    assert (first.returncode, error) == (-signal.SIGKILL, "")

    Command(words, folder).start(NAME, {})

    assert ended(Command(words, folder)) == "succeeded"
    assert times_run(tmp_path) == 1


@pytest.mark.parametrize("after_ms", range(0, 200, 20))
def test_a_restarted_watcher_runs_the_command_once(after_ms: int, folder: Path, tmp_path: Path) -> None:
    words = counting(tmp_path)
    first = watcher("print('ready', file=sys.stderr, flush=True)\n" + START, folder, words)
    assert first.stderr
    assert first.stdin
    assert first.stderr.readline() == "ready\n"
    first.stdin.close()
    time.sleep(after_ms / 1000)
    first.kill()
    first.wait()
    first.stderr.close()

    Command(words, folder).start(NAME, {})

    assert ended(Command(words, folder)) == "succeeded"
    assert times_run(tmp_path) == 1


def test_the_command_outlives_the_watcher_and_its_terminal(folder: Path, tmp_path: Path) -> None:
    words = ("sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo late")
    first = subprocess.Popen(
        [sys.executable, "-c", WATCHER + "start(); os.killpg(0, signal.SIGKILL)", str(folder), NAME, "1", *words],
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert first.wait() == -signal.SIGKILL
    assert Command(words, folder).status(NAME) == "running"

    (tmp_path / "go").touch()

    assert ended(Command(words, folder)) == "succeeded"
    assert (folder / f"{NAME}.log").read_text() == "late\n"


def test_a_runner_killed_before_it_began_does_not_block_the_next(folder: Path, tmp_path: Path) -> None:
    command = Command(counting(tmp_path), folder)
    folder.mkdir()
    with (folder / f"{NAME}.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as one does that is about to begin
        starting = pool.submit(command.start, NAME, {})
        while not (folder / f"{NAME}.evidence.json").exists():
            time.sleep(0.02)
        assert command.status(NAME) == "unknown"
        fcntl.flock(lock, fcntl.LOCK_UN)  # as death does
        starting.result()

    assert ended(command) == "succeeded"
    assert times_run(tmp_path) == 1


def test_a_command_that_is_killed_has_failed(sleeper: tuple[Command, int, int]) -> None:
    command, _, own = sleeper
    assert command.status(NAME) == "running"

    os.kill(own, signal.SIGKILL)

    assert ended(command) == "failed"


def test_a_command_that_is_killed_with_its_runner_has_failed_and_is_not_run_again(sleeper: tuple[Command, int, int]) -> None:
    command, runner, own = sleeper

    os.kill(runner, signal.SIGKILL)
    while parent(own) == runner:
        time.sleep(0.02)
    assert command.status(NAME) == "running"  # the command itself lives
    os.kill(own, signal.SIGKILL)

    assert ended(command) == "failed"
    command.start(NAME, {})
    assert command.status(NAME) == "failed"


def test_a_start_during_the_end_of_the_first_does_not_run_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *arguments: (folder / f"{NAME}.lock").write_text("began\n0\n"))

    Command(counting(tmp_path), folder).start(NAME, {})

    assert times_run(tmp_path) == 0


def test_a_command_that_ends_during_a_status_check_has_not_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / f"{NAME}.lock").write_text("began\n")

    def ends(lock: Path) -> bool:
        lock.write_text("began\n0\n")
        return False

    monkeypatch.setattr(module, "_is_locked", ends)

    assert Command((), folder).status(NAME) == "succeeded"


def test_concurrent_status_checks_show_no_transient_failure(folder: Path) -> None:
    command, seen = Command(("sh", "-c", "sleep 0.2"), folder), set()
    command.start(NAME, {})

    def poll() -> None:
        while (status := command.status(NAME)) == "running":
            pass
        seen.add(status)

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(poll) for _ in range(4)]:
            each.result()

    assert seen == {"succeeded"}


def test_a_missing_program_is_an_error_at_start(folder: Path) -> None:
    with pytest.raises(RetrainError, match=r"no program 'no-such-program' on PATH; install it, or correct the command"):
        Command(("no-such-program", "--now"), folder).start(NAME, {})

    assert Command((), folder).status(NAME) == "unknown"


def test_a_program_that_cannot_run_fails_with_a_reason_in_its_log(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    command = Command((str(program),), folder)

    command.start(NAME, {})

    assert ended(command) == "failed"
    assert f"{program}: not found" in (folder / f"{NAME}.log").read_text()


def test_a_program_next_to_the_python_executable_is_found_without_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    command = Command((Path(sys.executable).name, "-c", "print('hello')"), folder)

    command.start(NAME, {})

    assert ended(command) == "succeeded"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "Retrain", "-a", "a" * 64, "a\n"])
def test_a_name_that_is_invalid_in_kubernetes_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="small letters"):
        Command(("true",), folder).start(name, {})


def test_a_read_only_folder_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RetrainError, match=r"/file/.*; check the folder"):
        Command(("true",), tmp_path / "file").start(NAME, {})


def test_a_lock_that_cannot_be_opened_is_an_error_in_one_line(folder: Path) -> None:
    (folder / f"{NAME}.lock").mkdir(parents=True)

    with pytest.raises(RetrainError, match=r"Is a directory; check the folder"):
        Command(("true",), folder).start(NAME, {})


def test_the_command_is_split_like_a_shell_without_a_shell(tmp_path: Path) -> None:
    settings = Monitoring(
        trigger="command",
        trigger_command=f"{sys.executable} -c 'import sys; print(sys.argv[1:])' '$HOME' a\\ b",
        monitor=str(tmp_path),
    )
    trigger = open_trigger(settings)

    trigger.start(NAME, {})

    assert ended(trigger) == "succeeded"
    assert (runs_folder(settings) / f"{NAME}.log").read_text() == "['$HOME', 'a b']\n"


@pytest.mark.parametrize(("command", "reason"), [("", "is empty"), ("churn 'retrain", "No closing quotation")])
def test_an_empty_command_is_refused(command: str, reason: str) -> None:
    with pytest.raises(MonitorError, match=f"CHURN_TRIGGER_COMMAND.*{reason}"):
        open_trigger(Monitoring(trigger="command", trigger_command=command))


def test_runs_are_stored_next_to_the_reports_if_records_are_on_s3() -> None:
    assert runs_folder(Monitoring(monitor="here/monitoring")) == Path("here/monitoring/runs")
    assert runs_folder(Monitoring(monitor="s3://bucket/x", reports=Path("there/reports"))) == Path("there/runs")


def test_the_trigger_none_only_logs_a_due_retraining(caplog: pytest.LogCaptureFixture) -> None:
    trigger = open_trigger(Monitoring(trigger="none"))

    trigger.start(NAME, {})

    assert f"{NAME} is due" in caplog.text
    assert trigger.status(NAME) == "unknown"
