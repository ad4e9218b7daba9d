"""The order of the raw rows changes nothing: the same model, to the byte, end to end."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from project import Project, clone

pytestmark = pytest.mark.slow

QUICK = {"train.inner_folds": 2, "train.cv_folds": 2, "train.cv_repeats": 1, "train.gradient_boosting.n_estimators": 60}
ROWS = 1500


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("order")
    project = clone(folder / "churn", folder / "home")
    for key, value in QUICK.items():
        project.set(key, value)
    yield project
    shutil.rmtree(folder, ignore_errors=True)


def trained(project: Project, raw: pd.DataFrame) -> dict[str, bytes]:
    """The files of the version that these rows give."""
    raw.to_csv(project.folder / "data/raw/customers.csv", index=False)
    for stage in ("prepare", "featurize", "train"):
        project.run("churn", stage)
    candidate = project.folder / "models/candidate"
    return {path.name: path.read_bytes() for path in candidate.iterdir()} | {
        "metrics": (project.folder / "metrics/train.json").read_bytes()
    }


def test_three_orders_of_the_rows_and_a_second_run_give_the_same_version(project: Project) -> None:
    path = Path(project.folder / "data/raw/customers.csv")
    raw = pd.read_csv(path, dtype=str, keep_default_na=False).head(ROWS)

    first, again, *others = (trained(project, raw.sample(frac=1, random_state=seed)) for seed in (1, 1, 2, 3))

    assert {"model.onnx", "explain.json", "golden.json", "reference.parquet", "metrics"} <= first.keys()
    assert again == first
    assert others == [first, first]
