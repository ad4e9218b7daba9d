"""The documents match the project."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from churn.cli import app
from churn.settings import PREFIX, Monitoring, Serving, Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def render() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_data_page_lists_the_raw_files(render: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "ROOT", tmp_path)
    raw = tmp_path / "data/raw"
    raw.mkdir(parents=True)
    text = b'id,note\n007,"two\nlines"\n008,\n'
    for name in ("accounts.csv", "ingested-1.csv", "_SUCCESS.csv", "notes.md"):
        (raw / name).write_bytes(text)
    pd.DataFrame({"a": range(1200), "b": 0, "c": 0}).to_parquet(raw / "more.parquet")

    _, _, accounts, more = render.raw_files().splitlines()

    assert accounts == f"| `raw/accounts.csv` | {len(text)} | 2 | 2 | `{hashlib.sha256(text).hexdigest()}` |"
    assert "| 1,200 | 3 |" in more


def test_every_make_target_has_a_help_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    # These tests may be run by make, which would then print the folders that it enters.
    command = ["make", "--no-print-directory", "help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    # A line without an indent is the heading of a group.
    assert {line.split()[0] for line in printed.splitlines() if line.startswith(" ")} == targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_has_an_existing_target(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_anchor_link_has_an_existing_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text())

    assert [(path, anchor) for path, anchor in links if anchor not in anchors(page.parent / path if path else page)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_in_a_page_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()

    verbs = set(re.findall(r"\bmake ([a-z][a-z-]*)\b`?", "\n".join(re.findall(r"`+[^`]*`+", page.read_text()))))

    assert {verb for verb in verbs if not re.search(rf"^{verb}:", makefile, re.MULTILINE)} == set()


MODULE = re.compile(r"\b(\w+)\.py\b")


@pytest.mark.reported
@pytest.mark.parametrize(("package", "folder"), [("churn", "src/churn"), ("serving", "serving"), ("monitoring", "monitoring")])
def test_the_architecture_page_lists_exactly_the_modules_of_every_package(package: str, folder: str) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    block = re.search(rf"```\n{package}/\n(.*?)```", page, re.DOTALL)
    assert block

    modules = {path.stem for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"}

    assert set(MODULE.findall(block[1])) == modules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    paths = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    ends = {path[start:] for path in paths for start in [0, *(each.end() for each in re.finditer("/", path))]}

    named = {name for code in re.findall(r"`([^`\n]+)`", page.read_text()) for name in re.findall(r"[\w./-]+\.py\b", code)}

    assert named - ends == set()


def test_private_attributes_of_libraries_are_on_the_upgrading_page() -> None:
    files = [path for folder in ("src", "serving", "monitoring", "ops") for path in (ROOT / folder).rglob("*.py")]
    private = re.compile(r"\b(?!self\b|cls\b|os\._exit\b)\w+\.(_[a-z]\w*)")

    used = {name for path in files for name in private.findall(path.read_text())} - {"_replace"}  # of named tuples, documented

    assert "_upper_bounds" in used
    assert {name for name in used if f"{name}`" not in (ROOT / "docs/upgrading.md").read_text()} == set()


def variables(kind: type[Settings]) -> set[str]:
    return {str(field.validation_alias or f"{PREFIX}{name}").upper() for name, field in kind.model_fields.items()}


LEARNING = {"CHURN_EVENTS", "CHURN_LABEL_HORIZON_S", "CHURN_MAX_UNKNOWN_SHARE"}
BY_THE_SERVER = {"MLFLOW_TRACKING_URI", "CHURN_ONLINE_STORE", "CHURN_EVENTS"}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (".env.example", variables(Serving) | variables(Monitoring)),
        ("docs/adopting.md", variables(Settings)),
        ("docs/serving.md", variables(Serving) - variables(Settings) | BY_THE_SERVER),
        ("docs/monitoring.md", variables(Monitoring) - variables(Settings) | LEARNING),
    ],
)
def test_every_setting_is_documented(page: str, expected: set[str]) -> None:
    named = set(re.findall(r"\b(?:CHURN_[A-Z_]+|MLFLOW_TRACKING_URI)\b", (ROOT / page).read_text()))

    assert named == expected


def test_every_command_in_a_page_exists() -> None:
    words = {command.callback.__name__ for command in app.registered_commands if command.callback}
    code = "\n".join(block for page in PAGES for block in re.findall(r"```sh?\n.*?```|`[^`\n]+`", page.read_text(), re.DOTALL))

    used = set(re.findall(r"(?:^|`|&& )churn ([a-z]+)", code, re.MULTILINE))

    assert used <= words


def files_in_pages() -> list[str]:
    """The Python code of every page that is a whole file: it begins with a docstring."""
    text = "\n".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if block.startswith('"""')]


@pytest.mark.reported
@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["rules", "format"])
@pytest.mark.parametrize("code", files_in_pages(), ids=lambda code: code.splitlines()[0])
def test_files_in_pages_pass_the_linter(code: str, command: list[str]) -> None:
    # As a file of the package: rules differ by folder.
    ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", "src/churn/models/example.py", "-"]

    done = subprocess.run(ruff, input=code, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_no_run_output_is_committed() -> None:
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert tracked == []
