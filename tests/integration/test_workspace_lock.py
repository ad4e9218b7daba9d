"""One process at a time writes data/raw or runs the pipeline in a workspace."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pytest

from churn import paths
from churn.adapters.locks import workspace_lock

pytestmark = pytest.mark.slow

CUSTOMERS = Path(__file__).parents[2] / "data/raw/customers.csv"
HOLDER = """
import sys
from churn.adapters.locks import workspace_lock
with workspace_lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data/raw holds ten customers; sources of 200 and 300 rows of a later month."""
    monkeypatch.chdir(tmp_path)
    paths.RAW.mkdir(parents=True)
    customers(10).to_csv(paths.RAW / "customers.csv", index=False)
    for count in (200, 300):
        customers(count).assign(event_timestamp="2026-04-01").to_csv(tmp_path / f"c{count}.csv", index=False)
    return paths.RAW


def customers(count: int) -> pd.DataFrame:
    return pd.read_csv(CUSTOMERS, dtype=str, keep_default_na=False, nrows=count)


@contextmanager
def running(*command: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """A process in this folder, which is killed at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHURN_")} | variables
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **streams) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: "subprocess.Popen[str]", what: str) -> None:
    assert process.stderr
    output = ""
    for line in process.stderr:
        output += line
        if what in line:
            return
    pytest.fail(f"ended without {what!r}: {output}")


def ingested() -> pd.DataFrame:
    return pd.concat([pd.read_parquet(part) for part in paths.RAW.glob("ingested-*.parquet")])


@pytest.mark.parametrize("word", ["ingest", "retrain"])
def test_a_second_writer_waits_and_reads_the_rows_of_the_first(word: str) -> None:
    with ExitStack() as stack:
        with workspace_lock():
            second = stack.enter_context(running(sys.executable, "-m", "churn", word, CHURN_SOURCE="c200.csv"))
            wait_for_line(second, "waiting for its end")
            customers(300).assign(event_timestamp="2026-04-01").to_csv(paths.RAW / "first.csv", index=False)

        out, err = second.communicate()

    assert second.returncode == 0, err
    assert out.startswith({"ingest": "0 new rows", "retrain": "no new labelled rows"}[word])
    assert not list(paths.RAW.glob("ingested-*.parquet"))


@pytest.mark.reported
def test_concurrent_ingests_write_no_key_twice() -> None:
    with ExitStack() as stack:
        with workspace_lock():
            both = [
                stack.enter_context(running(sys.executable, "-m", "churn", "ingest", CHURN_SOURCE=f"c{count}.csv"))
                for count in (200, 300)
            ]
            for process in both:
                wait_for_line(process, "waiting for its end")

        output = [process.communicate() for process in both]

    assert [process.returncode for process in both] == [0, 0], output
    assert sum(int(out.split()[0]) for out, _ in output) == 300
    assert len(ingested()) == 300
    assert not ingested().duplicated(["customer_id", "event_timestamp"]).any()


def test_a_killed_process_leaves_no_lock() -> None:
    with running(sys.executable, "-c", HOLDER) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "locked\n"
        with running(sys.executable, "-m", "churn", "ingest", CHURN_SOURCE="c200.csv") as second:
            wait_for_line(second, "waiting for its end")

            holder.send_signal(signal.SIGKILL)

            out, err = second.communicate()
    assert (second.returncode, out) == (0, "200 new rows\n"), err


def test_the_lock_is_compatible_with_flock_on_the_folder() -> None:
    with workspace_lock():
        done = subprocess.run(["flock", "--nonblock", ".", "true"], check=False)

    assert done.returncode == 1
    assert subprocess.run(["flock", "--nonblock", ".", "true"], check=False).returncode == 0
