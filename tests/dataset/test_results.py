"""What is committed is what the pipeline makes of the committed code, parameters and rows."""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from project import Project

ROOT = Path(__file__).parents[2]


def digest(path: Path) -> str:
    """As DVC makes it: that of a folder is of the list of its files."""
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
        listed = [{"md5": digest(each), "relpath": each.relative_to(path).as_posix()} for each in files]
        return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def section_of(stage: str, params: dict[str, Any]) -> dict[str, Any]:
    """What dvc.lock has to say of a stage's parameters."""
    return {stage: params[stage]} if stage in params else {}


def test_dvc_lock_matches_the_code_and_parameters() -> None:
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    params = yaml.safe_load((ROOT / "params.yaml").read_text())

    files = {dep["path"]: dep["md5"] for stage in stages.values() for dep in stage["deps"] if dep["path"].startswith("src/")}
    stale = [path for path, md5 in files.items() if not (ROOT / path).exists() or digest(ROOT / path) != md5]
    stale += [
        name for name, stage in stages.items() if stage.get("params", {}).get("params.yaml", {}) != section_of(name, params)
    ]

    assert stale == [], "run `make lock`, and commit what it changes"


@pytest.fixture
def run_in_a_clone(request: pytest.FixtureRequest) -> Project:
    """A clean clone in which the pipeline has run once; not where the rows are elsewhere than in git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "data/raw"]
    if not subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout:
        pytest.skip("data/raw is not in git")
    reproduced: Project = request.getfixturevalue("reproduced")
    return reproduced


def made_by(lock: str) -> dict[str, str]:
    """Path → MD5 of everything that dvc.lock says a stage reads or writes."""
    stages = yaml.safe_load(lock)["stages"].values()
    return {each["path"]: each["md5"] for stage in stages for each in (*stage["deps"], *stage["outs"])}


@pytest.mark.slow
def test_a_clone_reproduces_committed_metrics_and_models_byte_for_byte(run_in_a_clone: Project) -> None:
    changed = run_in_a_clone.run("git", "status", "--porcelain", "--", "metrics", "plots")

    committed, made = (
        made_by(text) for text in (run_in_a_clone.run("git", "show", "HEAD:dvc.lock"), run_in_a_clone.read("dvc.lock"))
    )
    # The report names the champion, where the registry has one: a lock from a workspace that has is not what a clone makes.
    different = {path for path in committed | made if committed.get(path) != made.get(path)}
    assert different == set(), "run `make lock`, and commit what it changes"
    assert changed == ""


@pytest.mark.slow
def test_the_output_that_the_readme_quotes_is_printed(run_in_a_clone: Project) -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```$", run_in_a_clone.read("README.md"), re.DOTALL | re.MULTILINE)
    quoted = next((block for block in blocks if "version 1 is now production" in block), "").splitlines()
    printed = run_in_a_clone.first_output + run_in_a_clone.run("churn", "models")
    if not quoted or quoted[0] not in printed:
        pytest.skip("README.md quotes a run on other rows, or none")

    until_the_dates = [line.split("  passed  ")[0] for line in quoted]
    assert [line for line in until_the_dates if line not in printed] == []
