import hashlib
import subprocess
from pathlib import Path

import pytest

from churn.adapters.files import sha256
from churn.domain.encoding import contract_sha256
from churn.pipeline.lineage import git_sha, lineage
from churn.settings import Settings


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder outside any repository, as the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def repository(project: Path) -> Path:
    """A repository of one commit, with all the code in it."""
    git("init", "--quiet")
    (project / "src").mkdir()
    for name in ("src/model.py", "params.yaml", "dvc.yaml", "uv.lock", "README.md"):
        (project / name).write_text("first\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "Begin")
    return project


def test_the_digest_of_a_file_is_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"rows")

    assert sha256(path) == hashlib.sha256(b"rows").hexdigest()


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    assert sha256(tmp_path / "rows.parquet") == "none"


def test_the_code_version_is_its_commit(repository: Path) -> None:
    assert git_sha() == git("rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["src/model.py", "params.yaml", "dvc.yaml", "uv.lock", "src/new.py"])
def test_code_that_differs_from_its_commit_is_dirty(name: str, repository: Path) -> None:
    (repository / name).write_text("second\n")

    assert git_sha() == git("rev-parse", "HEAD") + "-dirty"


def test_other_files_do_not_make_the_code_dirty(repository: Path) -> None:
    (repository / "README.md").write_text("second\n")

    assert git_sha() == git("rev-parse", "HEAD")


def test_a_given_commit_is_used_unchanged(repository: Path) -> None:
    assert git_sha("abc123") == "abc123"


def test_outside_git_the_commit_is_unknown(project: Path) -> None:
    assert git_sha() == "unknown"


def test_without_git_on_the_path_the_commit_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))

    assert git_sha() == "unknown"


def test_the_contract_digest_is_stable() -> None:
    assert contract_sha256() == contract_sha256()
    assert len(contract_sha256()) == 64


def test_lineage_has_code_data_parameters_and_lock_file(project: Path) -> None:
    (project / "uv.lock").write_text("lock")
    rows = project / "data" / "prepared" / "train.parquet"
    rows.parent.mkdir(parents=True)
    rows.write_bytes(b"rows")

    tags = lineage('{"seed": 7}', Settings(git_sha="abc123"))

    assert tags == {
        "git_sha": "abc123",
        "train_rows_sha256": sha256(rows),
        "features_sha256": "none",
        "params": '{"seed": 7}',
        "uv_lock_sha256": sha256(project / "uv.lock"),
        "contract_sha256": contract_sha256(),
    }
