"""The Makefile targets that the workflows use: reports, comments, pull requests."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from delivering import ROOT, Bench
from ops.report import POINTS, chart, commit


def test_a_chart_has_a_line_of_the_base_commit_if_it_differs() -> None:
    now, before = "x,y\n0,0\n1,1\n", "x,y\n0,0\n0.5,1\n1,1\n"

    both, same = (chart("ROC", "x", "y", now, other) for other in (before, now))

    assert both.count("    line [") == 2
    assert same.count("    line [") == 1
    assert same.count(",") == POINTS
    assert both.startswith("```mermaid\nxychart-beta\n")


def repository(folder: Path) -> None:
    """All that is in the folder, as the one commit of a repository there."""
    git = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@localhost"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--allow-empty", "--message=all"]):
        subprocess.run([*git, *words], cwd=folder, check=True)


@pytest.mark.parametrize("name", ["0" * 40, "1" * 40, "HEAD^"])
def test_an_unknown_commit_resolves_to_an_empty_string(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert len(commit("HEAD")) == 12
    assert commit(name) == ""


def make(bench: Bench, verb: str, folder: Path = ROOT, **variables: str) -> str:
    environment = {"PATH": f"{bench.programs}{os.pathsep}{os.environ['PATH']}", **variables}
    command = ["make", "--silent", "--no-print-directory", verb]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_evidence_is_printed_verbatim_and_never_executed(bench: Bench) -> None:
    sent = {"reason": "$(touch made) `touch made` ${HOME}", "rows": 500}

    shown = make(bench, "ci-evidence", EVIDENCE=json.dumps(sent))

    assert json.loads(shown.removeprefix("```json\n").removesuffix("```\n")) == sent
    assert not (ROOT / "made").exists()


def test_a_downloaded_report_becomes_the_pull_request_comment(bench: Bench) -> None:
    make(bench, "ci-comment", PULL_REQUEST="7", REPORT="/elsewhere/report.md")

    assert bench.calls("gh") == ["pr comment 7 --body-file /elsewhere/report.md --edit-last --create-if-none"]


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_installing_test_tools_starts_no_service(tmp_path: Path) -> None:
    for name in ("bash", "env", "id", "install", "ls", "make", "rm", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    services = tmp_path / "policy"
    program(tmp_path / "sudo", 'exec "$@"')
    program(tmp_path / "apt-get", f'{services} prometheus start; echo "$? $*" >>{tmp_path}/calls')
    program(tmp_path / "localedef", f'echo "localedef $*" >>{tmp_path}/calls')

    subprocess.run(["make", "test-servers", f"SERVICES={services}"], cwd=ROOT, env={"PATH": str(tmp_path)}, check=True)

    update, install, locale = (tmp_path / "calls").read_text().splitlines()
    assert update.startswith("101 update")
    assert install.startswith("101 install")
    assert "prometheus" in install
    assert locale.startswith("localedef")
    assert "tr_TR" in locale
    assert not services.exists(), "what is installed later starts as ever"


def test_the_upgrade_pull_request_has_only_files_listed_in_the_makefile(bench: Bench, tmp_path: Path) -> None:
    origin, checkout, upgraded = (tmp_path / name for name in ("origin", "checkout", "upgraded"))
    names = ("uv.lock", "dvc.lock", "README.md", "metrics/train.json", "plots/roc.csv", "docs/model.md", "docs/images/roc.png")
    for folder in (checkout, upgraded):
        for name in (*names, "docs/render.py", "reports/report.md"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(folder.name)
    (checkout / "Makefile").write_text((ROOT / "Makefile").read_text())
    (upgraded / "Makefile").write_text("ci-propose:\n\ttouch stolen\n")
    (checkout / ".gitignore").write_text("reports/\n")
    repository(checkout)
    subprocess.run(["git", "clone", "--quiet", "--bare", checkout, origin], check=True)
    subprocess.run(["git", "remote", "add", "origin", origin], cwd=checkout, check=True)

    make(bench, "ci-propose", UPGRADED=str(upgraded), folder=checkout)

    shown = ["git", "diff", "--name-only", "HEAD", "freshness"]
    changed = subprocess.run(shown, cwd=origin, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(changed) == sorted(names)
    assert "--body-file reports/report.md" in bench.calls("gh")[-1]
    assert (checkout / "reports/report.md").read_text() == "upgraded"


def test_empty_variables_are_removed_from_the_environment(bench: Bench) -> None:
    bench.answer("gh", {})
    program(bench.programs / "gh", "env")

    shown = make(bench, "ci-has-run", CHURN_EVENTS="", AWS_DEFAULT_REGION="", CHURN_SOURCE="rows.csv")

    names = {line.partition("=")[0] for line in shown.splitlines()}
    assert "CHURN_SOURCE" in names
    assert not names & {"CHURN_EVENTS", "AWS_DEFAULT_REGION"}
