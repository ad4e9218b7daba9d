"""Every program writes to SQLite in transactions, and prints the same numbers, whatever the user's language is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from requirements import need_locale

ROOT = Path(__file__).parents[2]
TURKISH = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}
INSERTS = """
import sqlite3
connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE numbers (number)")
connection.execute("INSERT INTO numbers VALUES (1)")
transaction = connection.in_transaction
"""
AT_EXIT = f"""
import atexit, os, subprocess, sys
from pathlib import Path

INSERTS = {INSERTS!r}

def note():
    found = {{}}
    exec(INSERTS, found)
    child = subprocess.run([sys.executable, "-S", "-c", INSERTS + "print(transaction)"], capture_output=True, text=True)
    Path(os.environ["NOTES"]).write_text(f"{{found['transaction']}} {{child.stdout.strip()}}")

if "NOTES" in os.environ:
    atexit.register(note)
"""


def run(*command: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=folder, env=os.environ | TURKISH | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(autouse=True)
def turkish() -> None:
    """The locale of `TURKISH`."""
    need_locale(TURKISH["LANG"])


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="sqlite3 no longer depends on the locale")
def test_plain_python_opens_no_transaction_under_a_turkish_locale(tmp_path: Path) -> None:
    printed = run(sys.executable, "-c", f"{INSERTS}\nprint(transaction)", folder=tmp_path)

    assert printed.stdout.strip() == "False"


@pytest.mark.reported
@pytest.mark.parametrize(
    "program",
    [
        ("churn", "models"),
        ("python", "-m", "churn", "models"),
        ("python", "-m", "serving", "resume"),
        ("python", "-m", "monitoring", "--help"),
        ("python", "-m", "demo", "--settings"),
    ],
    ids=" ".join,
)
def test_a_program_and_its_children_use_transactions_in_a_turkish_locale(program: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_EXIT)
    command = [str(Path(sys.executable).parent / program[0]), *program[1:]]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    done = run(*command, folder=tmp_path, PYTHONPATH=path, NOTES=str(tmp_path / "notes"))

    assert "Traceback" not in done.stderr
    assert (tmp_path / "notes").read_text() == "True True", done.stderr


@pytest.mark.reported
def test_make_sets_the_locale_of_its_commands() -> None:
    printed = run("make", "--no-print-directory", "--eval", "show: ; @locale", "show", folder=ROOT)

    assert "LC_ALL=C.UTF-8" in printed.stdout
