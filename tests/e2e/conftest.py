import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from project import Project, clone


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clean clone in which the pipeline has run once."""
    folder = tmp_path_factory.mktemp("clone")
    project = clone(folder / "churn", folder / "home")
    project.first_output = project.run("dvc", "repro")
    yield project
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A clean clone in which nothing has run."""
    return clone(tmp_path / "churn", tmp_path / "home")
