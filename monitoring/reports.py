"""The reports of the windows: HTML and JSON files, and Evidently's workspace; the oldest make room for new ones."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

PROJECT = "churn"


class Reports:
    """A folder of `<name>.html` and `<name>.json`, and of Evidently's workspace `workspace`, for at most `kept` windows.

    Names begin with a time, so that their order is that of the windows.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        self._folder = folder
        self._kept = kept

    def add(self, snapshot: Any, name: str) -> None:
        """Write Evidently's result, and let go of the oldest."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write(f"{name}.html", snapshot.save_html)
        self._write(f"{name}.json", snapshot.save_json)
        workspace, project = self._workspace
        run = workspace.add_run(project, snapshot, include_data=False)
        self._write(f"{name}.run", lambda path: Path(path).write_text(str(run.id)))
        for old in sorted(self._folder.glob("[!.]*.run"))[: -self._kept]:
            workspace.delete_run(project, UUID(old.read_text()))
            for each in self._folder.glob(f"{old.stem}.*"):
                each.unlink()

    def _write(self, name: str, save: Callable[[str], Any]) -> None:
        part = self._folder / f".{name}.part"
        save(str(part))
        part.replace(self._folder / name)

    @cached_property
    def _workspace(self) -> tuple[Any, Any]:
        """Evidently's workspace and the id of the project in it. To open it reads every run: once is enough."""
        from evidently.ui.workspace import Workspace

        workspace = Workspace.create(str(self._folder / "workspace"))
        known = [each.id for each in workspace.list_projects() if each.name == PROJECT]
        return workspace, known[0] if known else workspace.create_project(PROJECT).id
