from pathlib import Path

import pytest

from project import Project, clone


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A clean clone in which nothing has run."""
    return clone(tmp_path / "churn", tmp_path / "home")
