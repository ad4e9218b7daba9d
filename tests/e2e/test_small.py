"""The pipeline end to end in a minute: DVC, MLflow and Feast in a clone, on few rows and with a small model."""

import shutil
from collections.abc import Iterator

import pandas as pd
import pytest

from project import Project, clone

SMALL = {
    "train.histories": [1.0],
    "train.inner_folds": 2,
    "train.cv_folds": 2,
    "train.cv_repeats": 1,
    "train.gradient_boosting.depths": [2],
    "train.gradient_boosting.n_estimators": 80,
    "evaluate.bootstrap_samples": 100,
}
ROWS = 1500


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clone in which the small pipeline has run once."""
    folder = tmp_path_factory.mktemp("small")
    project = clone(folder / "churn", folder / "home")
    raw = project.folder / "data/raw/customers.csv"
    pd.read_csv(raw, dtype=str, keep_default_na=False).head(ROWS).to_csv(raw, index=False)
    for key, value in SMALL.items():
        project.set(key, value)
    project.first_output = project.run("dvc", "repro")
    yield project
    shutil.rmtree(folder, ignore_errors=True)


def ran(output: str) -> list[str]:
    return [stage for stage in ("prepare", "featurize", "train", "evaluate") if f"Running stage '{stage}'" in output]


def test_the_pipeline_promotes_a_version_from_raw_rows(small: Project) -> None:
    assert ran(small.first_output) == ["prepare", "featurize", "train", "evaluate"]
    assert "candidate, production" in small.run("churn", "models")


def test_a_second_run_runs_no_stage(small: Project) -> None:
    assert ran(small.run("dvc", "repro")) == []


def test_every_customer_gets_a_probability(small: Project) -> None:
    small.run("churn", "score", "data/raw/customers.csv", "scored.csv")

    scored = pd.read_csv(small.folder / "scored.csv")
    assert len(scored) == ROWS
    assert scored.churn_probability.between(0, 1).all()


def test_a_candidate_that_fails_a_check_is_not_promoted(small: Project) -> None:
    small.set("evaluate.gate.min_auc", 0.98)

    output = small.run("dvc", "repro")

    assert ran(output) == ["evaluate"]
    assert "was not promoted" in output
    assert "failed: roc_auc" in small.run("churn", "models")
