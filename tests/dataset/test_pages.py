"""The generated parts of the pages are those of the contract, the rows and the last run."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def render() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_parts_are_current(render: ModuleType) -> None:
    stale = [page for page in render.documents() if render.rendered(page.read_text()) != page.read_text()]

    assert stale == [], "run `make render`"


def test_figures_in_the_run_output_of_the_readme_are_rendered(render: ModuleType) -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    quoted = next((block for block in blocks if "version 1 is now production" in block), None)
    if quoted is None:
        pytest.skip("README.md quotes no run")

    stale = re.sub(r"\d\.\d{4}", "0.0000", quoted)

    assert stale.count("0.0000") == 6
    assert render.rendered(stale) == quoted


def test_an_upgrade_pull_request_has_every_page_with_run_figures(render: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    proposed = re.search(r"^PROPOSED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert proposed
    evaluated, trained = render._metrics()
    other = {name: value + 0.01 for name, value in evaluated["test"].items() if isinstance(value, float)}
    other_cv = {name: value + 0.01 for name, value in trained["cv"].items() if isinstance(value, float)}

    monkeypatch.setattr(render, "_metrics", lambda: iter([{**evaluated, "test": other}, {**trained, "cv": other_cv}]))
    changed = {page for page in render.documents() if render.rendered(page.read_text()) != page.read_text()}

    assert {"docs/model.md"} <= {str(page.relative_to(ROOT)) for page in changed} <= set(proposed[1].split())
