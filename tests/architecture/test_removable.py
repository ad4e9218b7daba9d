"""Each part in the table "What can be deleted" of docs/adopting.md can be deleted: what remains still imports, and starts."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from ports import free_port
from removable import Part, parts

ROOT = Path(__file__).parents[2]
PACKAGES = {
    **{"churn": "src", "serving": "", "monitoring": "", "demo": "", "ops": ""},
    **{
        path.stem: str(path.parent.relative_to(ROOT))
        for place in ("tests/support", "benchmarks")
        for path in ROOT.glob(f"{place}/*.py")
    },
}
"""Package or module → the folder that it is in."""


PARTS = parts()


def editing(path: str) -> list[Part]:
    """The parts with an edit of that file."""
    return [part for part in PARTS if any(edit.path == path for edit in part.edits)]


ALL = Part(
    "all of them", tuple(path for part in PARTS for path in part.paths), tuple(edit for part in PARTS for edit in part.edits)
)
OF_FILES = [part for part in PARTS if not (ROOT / part.paths[0] / "__init__.py").exists() and not part.paths[0].endswith(".py")]
"""Those that are more than Python modules: tests read their files, some while they are collected."""
of_each_part = pytest.mark.parametrize("part", [*PARTS, ALL], ids=lambda part: part.name, scope="module")


@pytest.fixture(scope="module")
def remaining(part: Part, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project without the part, and without those that are to be deleted before it."""
    folder = tmp_path_factory.mktemp("remaining")
    deleted = [*(other for other in PARTS if other.name == part.after), part]
    gone = [path for each in deleted for path in each.paths]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file() and not any(Path(name).is_relative_to(path) for path in gone):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for each in deleted:
        for edit in each.edits:
            if (folder / edit.path).exists():
                edit.apply(folder)
    yield folder
    shutil.rmtree(folder)


def environment(folder: Path) -> dict[str, str]:
    """Of programs that run the copy's code on settings of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHURN_", "MLFLOW_", "AWS_"))}
    return kept | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )


def is_alive(folder: Path, module: str, port_variable: str) -> bool:
    """Start `python -m MODULE` on a free port until it answers that it is alive, or ends."""
    port = free_port()
    settings = {port_variable: str(port)}
    with (folder / f"{module}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=folder, env=environment(folder) | settings, stdout=log, stderr=log
        )
    try:
        while process.poll() is None:
            with suppress(httpx2.TransportError):
                return httpx2.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            time.sleep(0.05)
        return False
    finally:
        process.kill()
        process.wait()


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


@of_each_part
def test_every_path_of_a_removable_part_exists(part: Part) -> None:
    paths = [*part.paths, *(edit.path for edit in part.edits)]

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert part.after in ("", *(other.name for other in PARTS))


@of_each_part
def test_every_import_resolves_without_the_part(remaining: Path) -> None:
    missing = [
        f"{path.relative_to(remaining)}: {module}"
        for path in remaining.rglob("*.py")
        for module, names in imported(path)
        if module.partition(".")[0] in PACKAGES
        if not is_there(remaining, module) or not all(defines(remaining, module, name) for name in names)
    ]

    assert missing == []


@of_each_part
def test_import_rules_hold_without_the_part(remaining: Path) -> None:
    done = run(remaining, "lint-imports", "--no-cache")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("part", [*OF_FILES, ALL], ids=lambda part: part.name, scope="module")
def test_tests_that_name_the_part_are_collected_without_it(part: Part, remaining: Path) -> None:
    names = "|".join(
        re.escape(name) for path in part.paths for name in (Path(path).name, path.removesuffix(".py").replace("/", "."))
    )
    naming = re.compile(rf"""["'/ ]({names})["'/ ]""")
    tests = [path for path in (remaining / "tests").rglob("test_*.py") if naming.search(path.read_text())]

    done = run(remaining, "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *map(str, tests))

    assert done.returncode in (0, 5), done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("part", [ALL], ids=lambda part: part.name, scope="module")
def test_without_any_part_the_command_line_the_server_and_the_watcher_start(remaining: Path) -> None:
    assert run(remaining, "python", "-m", "churn", "--help").returncode == 0
    assert is_alive(remaining, "serving", "CHURN_PORT")
    assert is_alive(remaining, "monitoring", "CHURN_MONITOR_PORT")


@pytest.mark.parametrize("part", editing("Makefile"), ids=lambda part: part.name, scope="module")
def test_without_the_part_make_knows_every_prerequisite(remaining: Path) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "lint", "render", "test-all"], cwd=remaining, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", editing("docs/render.py"), ids=lambda part: part.name, scope="module")
def test_without_the_part_the_pages_are_rendered(remaining: Path) -> None:
    done = run(remaining, "python", "docs/render.py")

    assert done.returncode == 0, done.stderr
