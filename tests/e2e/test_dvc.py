"""DVC as its users know it, on the pipeline's own files."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from project import Project, clone
from s3_server import new_bucket

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(s3: str) -> tuple[str, dict[str, str]]:
    """An empty S3 bucket behind a real HTTP server, and the environment that reaches it."""
    return new_bucket(s3), {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def pull_elsewhere(project: Project, tmp_path: Path, remote: str, **environment: str) -> Project:
    """Push to a remote, clone again with the dvc.lock of the last run, pull there."""
    project.run("dvc", "remote", "add", "--local", "--force", "--default", "shared", remote)
    project.run("dvc", "push", environment=environment)
    other = clone(tmp_path / "elsewhere", tmp_path / "home")
    (other.folder / "dvc.lock").write_text(project.read("dvc.lock"))
    other.run("dvc", "remote", "add", "--local", "--default", "shared", remote)
    other.run("dvc", "pull", environment=environment)
    project.run("dvc", "remote", "remove", "--local", "shared")
    return other


def test_a_clean_clone_has_no_dvc_remote(reproduced: Project) -> None:
    assert reproduced.run("dvc", "remote", "list") == ""


def test_data_is_pushed_and_pulled_through_a_local_folder(reproduced: Project, tmp_path: Path) -> None:
    other = pull_elsewhere(reproduced, tmp_path, str(tmp_path / "remote"))

    for name in ("models/candidate/model.onnx", "data/features/customers.parquet"):
        assert (other.folder / name).read_bytes() == (reproduced.folder / name).read_bytes()


def test_data_is_pushed_and_pulled_through_s3(reproduced: Project, tmp_path: Path, bucket: tuple[str, dict[str, str]]) -> None:
    name, environment = bucket
    other = pull_elsewhere(reproduced, tmp_path, f"s3://{name}/churn", **environment)

    for name in ("models/candidate/model.onnx", "data/features/customers.parquet"):
        assert (other.folder / name).read_bytes() == (reproduced.folder / name).read_bytes()


def test_evaluate_refuses_pulled_files_of_another_registry(reproduced: Project, tmp_path: Path) -> None:
    other = pull_elsewhere(reproduced, tmp_path, str(tmp_path / "remote"))

    message = other.run("churn", "evaluate", exit_code=1)

    assert "trained against another registry: run `dvc repro --force`" in message


def test_dag_shows_the_four_stages_in_order(reproduced: Project) -> None:
    drawn = reproduced.run("dvc", "dag", "--dot")

    arrows = {tuple(part.strip('" ;') for part in line.split("->")) for line in drawn.splitlines() if "->" in line}
    assert arrows == {("prepare", "featurize"), ("prepare", "train"), ("featurize", "train"), ("train", "evaluate")}


def test_metrics_and_params_compare_key_by_key(reproduced: Project) -> None:
    reproduced.set("evaluate.costs.offer", 50)

    params = json.loads(reproduced.run("dvc", "params", "diff", "--json"))

    reproduced.restore()
    assert params == {"params.yaml": {"evaluate.costs.offer": {"old": 60, "new": 50, "diff": -10}}}
    shown = json.loads(reproduced.run("dvc", "metrics", "show", "--json"))
    assert "roc_auc" in json.dumps(shown)


def test_plots_show_writes_a_page_with_every_plot(reproduced: Project) -> None:
    reproduced.run("dvc", "plots", "show", "--out", "page")

    page = (reproduced.folder / "page" / "index.html").read_text()
    names = ("roc", "precision_recall", "calibration", "lift", "confusion", "importance", "loss")
    assert [name for name in names if f"plots_{name}_csv" not in page] == []


def test_an_experiment_with_one_changed_parameter_is_listed(fresh: Project) -> None:
    fresh.run("dvc", "repro")
    fresh.run("git", "commit", "--quiet", "--all", "--message", "A run")

    fresh.run("dvc", "exp", "run", "--name", "cheaper", "--set-param", "evaluate.costs.offer=50")

    shown = {line["Experiment"]: line for line in csv.DictReader(io.StringIO(fresh.run("dvc", "exp", "show", "--csv")))}

    assert shown["cheaper"]["evaluate.costs.offer"] == "50"
    differences = json.loads(fresh.run("dvc", "metrics", "diff", "--json"))
    assert set(differences["metrics/evaluate.json"]) >= {"threshold", "test.profit_per_customer"}
    assert "test.roc_auc" not in differences["metrics/evaluate.json"]
