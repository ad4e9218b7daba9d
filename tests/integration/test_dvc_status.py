"""`churn retrain` reads from DVC whether a stage is left to run."""

import subprocess
import sys
from pathlib import Path

import pytest

from churn.pipeline import retrain

STAGES = """
stages:
  copy:
    cmd: cp rows.csv made.csv
    deps: [rows.csv]
    outs: [made.csv]
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one stage that has run, without git."""
    (tmp_path / "rows.csv").write_text("1\n")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    monkeypatch.chdir(tmp_path)
    for words in (("init", "--no-scm"), ("repro",)):
        subprocess.run([Path(sys.executable).with_name("dvc"), *words], check=True, capture_output=True)
    return tmp_path


def test_a_workspace_with_every_stage_run_is_finished(workspace: Path) -> None:
    assert not retrain._is_unfinished()


def test_a_workspace_with_unprocessed_rows_is_unfinished(workspace: Path) -> None:
    (workspace / "rows.csv").write_text("1\n2\n")

    assert retrain._is_unfinished()
