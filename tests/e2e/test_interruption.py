"""The pipeline recovers when it is killed, and refuses to run twice at once."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from project import Project

pytestmark = pytest.mark.slow

Sign = Callable[[Project], bool]

SIGNS: dict[str, Sign] = {
    "prepare": lambda project: (project.folder / "data/validation/index.html").exists(),
    "featurize": lambda project: (project.folder / "data/features/customers.parquet").exists(),
    "train": lambda project: any((project.folder / "mlruns").rglob("plots")),
    "evaluate": lambda project: (
        any((project.folder / "reports").glob(".evaluate.*")) or (project.folder / "reports/evaluate").exists()
    ),
}
"""What shows that a stage is in the midst of its work: something is written, the rest is not."""


def kill_in(project: Project, stage: str) -> None:
    """Start the pipeline and kill all of it with SIGKILL in that stage."""
    process = project.start("dvc", "repro")
    deadline = time.monotonic() + 300
    while not SIGNS[stage](project):
        assert process.poll() is None, f"the pipeline ended before {stage}: {process.communicate()[0]}"
        assert time.monotonic() < deadline, f"no sign of {stage}"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_pipeline_killed_in_every_stage_finishes_when_run_again(fresh: Project, reproduced: Project) -> None:
    for stage in SIGNS:
        kill_in(fresh, stage)

    fresh.run("dvc", "repro")

    assert "production" in fresh.run("churn", "models")
    assert "up to date" in fresh.run("dvc", "status")
    results = [path for folder in ("metrics", "plots") for path in (fresh.folder / folder).iterdir()]
    assert [path.name for path in results if path.read_text() != reproduced.read(str(path.relative_to(fresh.folder)))] == []
    assert fresh.run("churn", "score", "data/raw/customers.csv", "scored.parquet").endswith("into scored.parquet\n")
    features = fresh.run("churn", "featurize")
    assert "0 rows new to the online store" in features


def test_a_second_concurrent_run_in_a_workspace_fails_with_a_lock_message(fresh: Project) -> None:
    first = fresh.start("dvc", "repro", "prepare")
    while not (fresh.folder / ".dvc/tmp/lock").exists() or not (fresh.folder / "data/validation").exists():
        assert first.poll() is None
        time.sleep(0.005)

    second = fresh.start("dvc", "repro", "prepare")
    message, _ = second.communicate()
    output, _ = first.communicate()

    assert second.returncode != 0
    assert "lock" in message
    assert first.returncode == 0, output


@pytest.mark.parametrize("stage", ["prepare", "featurize", "train", "evaluate"])
def test_a_stage_without_its_inputs_fails_in_one_line(fresh: Project, stage: str) -> None:
    if stage == "prepare":
        fresh.run("rm", "-r", "data/raw")

    message = fresh.run("churn", stage, exit_code=1)

    assert message.count("\n") == 1
    assert message.startswith("churn: ")
