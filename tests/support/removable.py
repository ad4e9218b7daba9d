"""The parts of the project that can be deleted, as the table "What can be deleted" of docs/adopting.md has them."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADING = "| part | delete | edit | goes with it |"


@dataclass(frozen=True)
class Edit:
    """In a file: every line with a text, a text, or a function, to be removed."""

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
            case _:
                edited = without_function(text, self.what)
        assert edited != text, f"{self.path} has no {self.what!r}"
        path.write_text(edited)


@dataclass(frozen=True)
class Part:
    """What to delete and to edit. `by_hand`: some edits are only described."""

    name: str
    paths: tuple[str, ...]
    edits: tuple[Edit, ...]
    by_hand: bool


def without_function(text: str, name: str) -> str:
    """A module's text without the function."""
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
        edits = [Edit(*found) for found in re.findall(r"`([^`]+)`: (lines with|text|function) `([^`]+)`", edit)]
        paths = [path for path in re.findall(r"`([^`]+)`", delete) if "*" not in path]
        rows.append(Part(name, tuple(paths), tuple(edits), "by hand" in edit))
    return rows
