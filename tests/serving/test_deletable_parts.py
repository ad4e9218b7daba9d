"""The parts of the server that can be deleted: without each of them (docs/adopting.md), the server starts and responds."""

import shutil
from pathlib import Path

import pytest

from removable import Part, parts
from served import ROOT, Releases, customers, servers

GONE = {
    "serving/fast_path": (),
    "serving/protocols/mlflow": ("/ping", "/version"),
    "serving/protocols/kserve": ("/v2", "/v2/health/live"),
    "serving/page": ("/", "/docs"),
}
"""Folder → paths that are then unknown."""
PARTS = [part for part in parts() if part.paths[0] in GONE]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_server_runs_without_the_part(
    part: Part, released: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = GONE[part.paths[0]]
    shutil.copytree(ROOT / "serving", tmp_path / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(tmp_path / part.paths[0])
    for edit in part.edits:
        if edit.path.startswith("serving/"):
            edit.apply(tmp_path)
    monkeypatch.setattr("served.ROOT", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")

    with servers(released, tmp_path) as start:
        server = start().ready()

        assert server.predict(customers(2)).status_code == 200
        assert [server.http.get(path).status_code for path in paths] == [404] * len(paths)
        assert server.http.get("/openapi.json").status_code == 200
