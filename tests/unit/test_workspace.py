"""A folder to run the pipeline in, copied from a read-only project."""

from pathlib import Path

import pytest

from churn.pipeline.workspace import CODE, lay

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lay(ROOT, tmp_path, rows=True)
    return tmp_path


def test_a_workspace_has_the_code_the_shipped_rows_and_dvc_without_git(folder: Path) -> None:
    assert all((folder / name).exists() for name in (*CODE, "dvc.lock", "data/raw/customers.csv"))
    assert "no_scm = true" in (folder / ".dvc/config").read_text()


def test_a_workspace_without_shipped_rows_has_an_empty_raw_folder(tmp_path: Path) -> None:
    lay(ROOT, tmp_path, rows=False)

    assert [*(tmp_path / "data/raw").iterdir()] == []


def test_a_second_copy_keeps_outputs_and_updates_the_code(folder: Path) -> None:
    (folder / "dvc.lock").write_text("what was run here")
    (folder / "data/raw/ingested-1.parquet").write_text("rows")
    (folder / "params.yaml").write_text("changed")
    (folder / "src/churn/gone.py").write_text("from an older version")

    lay(ROOT, folder, rows=True)

    assert (folder / "dvc.lock").read_text() == "what was run here"
    assert (folder / "data/raw/ingested-1.parquet").exists()
    assert (folder / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert not (folder / "src/churn/gone.py").exists()


def test_shipped_rows_are_not_copied_beside_ingested_rows(tmp_path: Path) -> None:
    lay(ROOT, tmp_path, rows=False)
    (tmp_path / "data/raw/ingested-1.parquet").write_text("rows")

    lay(ROOT, tmp_path, rows=True)

    assert [path.name for path in (tmp_path / "data/raw").iterdir()] == ["ingested-1.parquet"]
