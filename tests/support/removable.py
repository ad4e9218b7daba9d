"""The parts of the project that can be deleted, as the table "What can be deleted" of docs/adopting.md has them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADING = "| part | delete | edit | goes with it |"
KINDS = ("lines with", "text", "function", "group", "target", "rendered")
"""What an edit removes: every line with a text, a text, a Python function, a group (`##@`) or a target of the Makefile, and the
rendered parts of a page whose names begin so."""


@dataclass(frozen=True)
class Edit:
    """What is removed from a file: see `KINDS`."""

    path: str
    kind: str
    what: str

    def apply(self, folder: Path) -> None:
        """Edit the file in a copy of the project."""
        path = folder / self.path
        text = path.read_text()
        match self.kind:
            case "lines with":
                edited = "".join(line for line in text.splitlines(keepends=True) if self.what not in line)
            case "text":
                edited = text.replace(self.what, "")
            case "function":
                edited = without_function(text, self.what)
            case "group":
                edited = re.sub(rf"^##@ {self.what}\b.*?(?=^##@ |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
            case "target":
                edited = re.sub(rf"^\.PHONY: {self.what}\n.*?(?=^\n|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
            case _:
                edited = re.sub(rf"<!-- render: {self.what}\w* -->.*?<!-- end -->", "", text, flags=re.DOTALL)
        assert edited != text, f"{self.path} has no {self.what!r}"
        path.write_text(edited)


@dataclass(frozen=True)
class Part:
    """What to delete and to edit."""

    name: str
    paths: tuple[str, ...]
    edits: tuple[Edit, ...]
    after: str = ""
    """The part that must have been deleted before."""


def without_function(text: str, name: str) -> str:
    """A module's text without the function and its decorators."""
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
    return "".join(lines)


def parts() -> list[Part]:
    """The rows of the table."""
    lines = (ROOT / "docs/adopting.md").read_text().splitlines()
    rows: list[Part] = []
    for line in lines[lines.index(HEADING) + 2 :]:
        if not line.startswith("|"):
            break
        name, delete, edit, _ = (cell.strip() for cell in line.strip("|").split("|"))
        edits = [Edit(*found) for found in re.findall(rf"`([^`]+)`: ({'|'.join(KINDS)}) `([^`]+)`", edit)]
        name, _, after = name.partition(", after ")
        rows.append(Part(name, tuple(paths_of(delete)), tuple(edits), after))
    return rows


def paths_of(cell: str) -> Iterator[str]:
    """The paths in backticks, patterns expanded as the shell does; a pattern of nothing stays as it is."""
    for pattern in re.findall(r"`([^`]+)`", cell):
        found = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
        yield from found or [pattern]
