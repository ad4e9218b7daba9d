"""A folder to run the pipeline in, laid out from a project that is only read."""

from pathlib import Path

import pytest

from churn.pipeline.workspace import CODE, lay

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lay(ROOT, tmp_path, rows=True)
    return tmp_path


def test_it_has_the_code_the_shipped_rows_and_a_dvc_without_git(folder: Path) -> None:
    assert all((folder / name).exists() for name in (*CODE, "dvc.lock", "data/raw/customers.csv"))
    assert "no_scm = true" in (folder / ".dvc/config").read_text()


def test_without_the_shipped_rows_the_folder_for_rows_is_empty(tmp_path: Path) -> None:
    lay(ROOT, tmp_path, rows=False)

    assert [*(tmp_path / "data/raw").iterdir()] == []


def test_laid_out_again_what_was_made_there_stays_and_the_code_is_the_projects(folder: Path) -> None:
    (folder / "dvc.lock").write_text("what was run here")
    (folder / "data/raw/ingested-1.parquet").write_text("rows")
    (folder / "params.yaml").write_text("changed")
    (folder / "src/churn/gone.py").write_text("from an older version")

    lay(ROOT, folder, rows=True)

    assert (folder / "dvc.lock").read_text() == "what was run here"
    assert (folder / "data/raw/ingested-1.parquet").exists()
    assert (folder / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert not (folder / "src/churn/gone.py").exists()


def test_rows_that_came_in_are_not_joined_by_the_shipped_ones(tmp_path: Path) -> None:
    lay(ROOT, tmp_path, rows=False)
    (tmp_path / "data/raw/ingested-1.parquet").write_text("rows")

    lay(ROOT, tmp_path, rows=True)

    assert [path.name for path in (tmp_path / "data/raw").iterdir()] == ["ingested-1.parquet"]
