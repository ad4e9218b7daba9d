"""A bundle is what its manifest says, or it is refused."""

import hashlib
import json
from pathlib import Path

import pytest

from churn.adapters import bundle
from churn.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed bundle without optional files."""
    for name in bundle.REQUIRED:
        (tmp_path / name).write_text(f"content of {name}")
    bundle.seal(tmp_path)
    return tmp_path


def copied(source: Path) -> bundle.Fetch:
    """Fetches from a folder."""

    def fetch(name: str, out: Path, max_bytes: int) -> bool:
        if (source / name).exists():
            out.write_bytes((source / name).read_bytes()[: max_bytes + 1])
        return (source / name).exists()

    return fetch


def test_the_digest_is_of_the_manifest_and_covers_every_file(folder: Path) -> None:
    before = bundle.digest(folder)
    assert before == hashlib.sha256((folder / bundle.MANIFEST).read_bytes()).hexdigest()

    for name in bundle.REQUIRED:
        (folder / name).write_text("changed")
        assert bundle.seal(folder) != before


@pytest.mark.reported
@pytest.mark.parametrize("name", bundle.MAX_BYTES)
def test_a_changed_file_is_refused(name: str, folder: Path) -> None:
    (folder / name).write_text("there from the beginning")
    digest = bundle.seal(folder)
    (folder / name).write_text("changed afterwards")

    with pytest.raises(BundleError, match=name):
        bundle.read(folder, bundle.MAX_BYTES, expected=digest)
    with pytest.raises(BundleError, match=name):
        bundle.digest(folder)


def test_only_the_requested_files_are_read(folder: Path) -> None:
    (folder / bundle.REFERENCE).write_text("rows")
    digest = bundle.seal(folder)
    (folder / bundle.REFERENCE).unlink()

    assert bundle.read(folder, (bundle.MODEL, bundle.EXPLAIN), expected=digest) == {bundle.MODEL: b"content of model.onnx"}


def test_a_fetched_bundle_is_compared_with_its_digest(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place, digest = tmp_path_factory.mktemp("fetched"), bundle.digest(folder)

    bundle.fetch(copied(folder), place, digest)

    assert bundle.read(place, expected=digest) == bundle.read(folder, expected=digest)
    (folder / bundle.MODEL).write_text("changed in the store, and longer than the file that was registered")
    with pytest.raises(BundleError, match=r"model\.onnx: expected at most 21 bytes, got more"):
        bundle.fetch(copied(folder), place, digest)


@pytest.mark.parametrize(
    "size", [bundle.MAX_BYTES[bundle.MODEL] + 1, -1, True, 1.0, "1", None, 10**400], ids=lambda size: f"{size!r:.12}"
)
def test_a_manifest_with_an_invalid_size_is_refused(size: object, folder: Path) -> None:
    files = json.loads((folder / bundle.MANIFEST).read_text())["files"]
    files[bundle.MODEL]["size"] = size
    content = json.dumps({"files": files}).encode()

    with pytest.raises(BundleError, match=bundle.MANIFEST):
        bundle.parse_manifest(content)


@pytest.mark.parametrize("name", [*bundle.REQUIRED])
def test_a_bundle_without_a_required_file_cannot_be_sealed(name: str, folder: Path) -> None:
    (folder / name).unlink()

    with pytest.raises(BundleError, match=name):
        bundle.seal(folder)


@pytest.mark.parametrize("tag", ["", "abc", "../../x", "A" * 64, "a" * 65, "a" * 63 + "\n"])
def test_a_tag_that_is_not_a_digest_is_refused(tag: str, folder: Path) -> None:
    with pytest.raises(BundleError, match="train it again"):
        bundle.read(folder, expected=tag)
