"""A server or tool that the machine lacks skips its tests in `make test`, and fails them in `make test-all`."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import requirements
from requirements import PROGRAMS, ROOT, need, need_locale


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which nothing is installed: the one folder of its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(requirements, "PROGRAMS", {name: requirements.Program((name,), "apt-get") for name in PROGRAMS})
    requirements.find.cache_clear()
    yield tmp_path
    requirements.find.cache_clear()


def install(folder: Path, name: str, prints: str = "") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_missing_program_skips_the_test_with_its_name(name: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_ALL", raising=False)

    with pytest.raises(pytest.skip.Exception, match=name):
        need(name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_missing_program_fails_the_test_where_all_are_required(name: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_ALL", "1")

    with pytest.raises(pytest.fail.Exception, match=name):
        need(name)


def test_a_missing_locale_skips_or_fails_the_test(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(bare, "locale", prints="C.utf8")
    need_locale("C.UTF-8")

    monkeypatch.delenv("REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception):
        need_locale("tr_TR.UTF-8")

    monkeypatch.setenv("REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception):
        need_locale("tr_TR.UTF-8")


def test_a_program_on_the_path_is_used(bare: Path) -> None:
    path = install(bare, "redis-server")

    assert need("redis-server") == path


@pytest.mark.parametrize(("version", "is_found"), [("v1.20.2", False), ("v1.29.9", False), ("v1.30.0", True), ("v1.36.1", True)])
def test_a_kubectl_that_renders_differently_counts_as_missing(
    version: str, is_found: bool, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent = requirements.Program(("kubectl",), "make render", accepts=PROGRAMS["kubectl"].accepts)
    monkeypatch.setitem(requirements.PROGRAMS, "kubectl", recent)
    path = install(bare, "kubectl", prints=f"Client Version: {version}")

    assert requirements.find("kubectl") == (path if is_found else None)


@pytest.mark.parametrize(("target", "is_set"), [("test", False), ("test-all", True)])
def test_only_test_all_requires_all(target: str, is_set: bool) -> None:
    command = ["make", "--no-print-directory", "--dry-run", target]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    (line,) = [line for line in printed.splitlines() if "pytest --numprocesses" in line]
    assert ("REQUIRE_ALL=1" in line) is is_set
