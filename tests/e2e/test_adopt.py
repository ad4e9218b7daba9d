"""Tables of other companies, taken from `churn init` to a prediction without an edit."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tables
from adopting import adopt, prediction, production, serving
from project import Project, clone

pytestmark = pytest.mark.slow

ADOPTED: dict[str, Callable[[Path], Path]] = {"monthly": tables.monthly, "dates and nulls": tables.dates_and_nulls}


@pytest.fixture(scope="module", params=ADOPTED.values(), ids=list(ADOPTED))
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clone that adopted the table."""
    folder = tmp_path_factory.mktemp("adopted")
    project = clone(folder / "churn", folder / "home")
    project.first_output = adopt(project, request.param(folder))
    yield project
    shutil.rmtree(folder, ignore_errors=True)


def test_the_first_version_of_an_adopted_table_is_promoted(project: Project) -> None:
    assert production(project) == "1", project.first_output


def test_the_server_predicts_by_the_model_of_an_adopted_table(project: Project) -> None:
    with serving(project) as url:
        assert 0 < prediction(project, url)["churn_probability"] < 1


def test_the_metrics_of_an_adopted_table_are_of_its_own_rows(project: Project) -> None:
    scores = json.loads(project.read("metrics/evaluate.json"))["test"]

    assert 0.5 < scores["roc_auc"] < 0.9
