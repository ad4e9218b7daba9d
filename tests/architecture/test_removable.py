"""Each part in the table "What can be deleted" of docs/adopting.md can be deleted: what remains still imports."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from removable import Part, parts

ROOT = Path(__file__).parents[2]
PACKAGES = {"churn": "src", "serving": "", "monitoring": "", "demo": "", "ops": ""}
"""Package → the folder that it is in."""


PARTS = parts()
EDITABLE = [part for part in PARTS if not part.by_hand]


@pytest.fixture
def remaining(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the project without the part."""
    part: Part = request.param
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file() and not any(Path(name).is_relative_to(path) for path in part.paths):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for edit in part.edits:
        edit.apply(tmp_path)
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join([str(folder / "src"), str(folder)])
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )


def imported(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names) of every absolute import in a file, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, tuple(alias.name for alias in node.names)


def is_there(folder: Path, module: str) -> bool:
    path = folder / PACKAGES[module.partition(".")[0]] / module.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def defines(folder: Path, module: str, name: str) -> bool:
    """Whether `from module import name` finds a module or a name that is assigned, defined or imported there."""
    path = folder / PACKAGES[module.partition(".")[0]] / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return is_there(folder, f"{module}.{name}") or bool(re.search(rf"\b{re.escape(name)}\b", file.read_text()))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_path_of_a_removable_part_exists(part: Part) -> None:
    paths = [*part.paths, *(edit.path for edit in part.edits)]

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("remaining", EDITABLE, ids=lambda part: part.name, indirect=True)
def test_every_import_resolves_without_the_part(remaining: Path) -> None:
    missing = [
        f"{path.relative_to(remaining)}: {module}"
        for path in remaining.rglob("*.py")
        for module, names in imported(path)
        if module.partition(".")[0] in PACKAGES
        if not is_there(remaining, module) or not all(defines(remaining, module, name) for name in names)
    ]

    assert missing == []


@pytest.mark.parametrize("remaining", EDITABLE, ids=lambda part: part.name, indirect=True)
def test_import_rules_hold_without_the_part(remaining: Path) -> None:
    done = run(remaining, "lint-imports", "--no-cache")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("part", "remaining"), [(part, part) for part in EDITABLE], ids=lambda part: part.name, indirect=["remaining"]
)
def test_tests_that_name_the_part_are_collected_without_it(part: Part, remaining: Path) -> None:
    names = {Path(path).stem for path in part.paths if not path.startswith("tests/")} | {edit.what for edit in part.edits}
    tests = [path for path in (remaining / "tests").rglob("test_*.py") if any(name in path.read_text() for name in names)]

    done = run(remaining, "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *map(str, tests))

    assert done.returncode in (0, 5), done.stdout[-3000:] + done.stderr[-1000:]
