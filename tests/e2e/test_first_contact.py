"""The commands of the README as a new user runs them: without git, and with experiments."""

import re
import shutil

import pytest

from project import Project

pytestmark = pytest.mark.slow


def make(project: Project, target: str) -> str:
    """Run a target as if the packages were installed already: those of this environment are on PATH."""
    (project.folder / ".venv").mkdir(exist_ok=True)
    (project.folder / ".venv/.synced").touch()
    return project.run("make", "UV=uv", target)


@pytest.mark.reported
def test_the_pipeline_runs_without_git_and_records_an_unknown_commit(fresh: Project) -> None:
    shutil.rmtree(fresh.folder / ".git")

    printed = make(fresh, "repro")

    assert "\npromoted\n" in printed
    assert printed.count("passed every check") == 1, "the reason, in the gate's own message"
    assert "`dvc push`" not in printed, "there is no remote"
    assert "git_sha: unknown\n" in fresh.run("churn", "lineage", "1")


@pytest.mark.reported
def test_dvc_works_with_git_again_once_there_is_one(fresh: Project) -> None:
    shutil.rmtree(fresh.folder / ".git")
    make(fresh, "setup")
    assert fresh.run("dvc", "config", "core.no_scm") == "true\n"

    fresh.run("git", "init", "--quiet")
    make(fresh, "setup")

    assert fresh.run("dvc", "config", "core.no_scm") == ""
    fresh.run("dvc", "status")


@pytest.mark.reported
def test_make_test_without_git_fails_in_one_line(fresh: Project) -> None:
    shutil.rmtree(fresh.folder / ".git")

    printed = fresh.run("make", "test", exit_code=2)

    assert "make test: expected a git repository" in printed


@pytest.mark.reported
def test_the_refused_readme_experiment_is_registered_and_not_applied(fresh: Project) -> None:
    fresh.run("dvc", "repro")
    command = next(line for line in fresh.read("README.md").splitlines() if "dvc exp run" in line)
    command, options = re.subn(r"(-S|--set-param) \S+", "--name refused --set-param evaluate.gate.min_auc=0.99", command)
    assert options == 1
    before = fresh.run("git", "status", "--porcelain")

    fresh.run("bash", "-euc", command)

    assert fresh.run("git", "status", "--porcelain") == before
    assert "failed: roc_auc" in fresh.run("churn", "models"), "evaluated in the project's own registry"
    assert "refused" in fresh.run("dvc", "exp", "list", "--name-only")


def test_outputs_of_readme_commands_are_ignored_by_git(fresh: Project) -> None:
    for name in ("scored.csv", "dvc_plots/index.html"):
        (fresh.folder / name).parent.mkdir(exist_ok=True)
        (fresh.folder / name).touch()

    assert fresh.run("git", "status", "--porcelain") == ""
