"""The parts of the server that can be deleted: without each, as docs/serving.md says, the rest starts and answers."""

import re
import shutil
from pathlib import Path

import pytest

from served import ROOT, Releases, customers, servers

PARTS = {
    "fast_path": (r"    if settings\.fast_path:\n(        .*\n|\n)*", ()),
    "protocols/mlflow": (r".*\bmlflow\b.*\n", ("/ping", "/version")),
    "protocols/kserve": (r".*\bkserve\b.*\n", ("/v2", "/v2/health/live")),
    "page": (r".*\bpage\b.*\n", ("/", "/docs")),
}
"""Folder → what goes from app.py, and paths that are then unknown."""


@pytest.mark.parametrize("part", PARTS)
def test_the_server_runs_without_the_part(part: str, released: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, paths = PARTS[part]
    shutil.copytree(ROOT / "serving", tmp_path / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(tmp_path / "serving" / part)
    app = tmp_path / "serving" / "app.py"
    app.write_text(re.sub(lines, "", app.read_text()))
    monkeypatch.setattr("served.ROOT", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")

    with servers(released, tmp_path) as start:
        server = start().ready()

        assert server.predict(customers(2)).status_code == 200
        assert [server.http.get(path).status_code for path in paths] == [404] * len(paths)
        assert server.http.get("/openapi.json").status_code == 200
