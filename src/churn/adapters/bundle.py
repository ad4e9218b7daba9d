"""A version's bundle: which files travel with it, how large they may be, and the one digest that covers them all.

`manifest.json` lists the SHA-256 and the size of every other file; the version's tag `bundle_sha256` is the SHA-256 of the
manifest. A reader of some of the files can therefore check each of them without the others.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from churn.adapters.files import write_json
from churn.domain.reasons import reason
from churn.domain.version import DIGEST_TAG
from churn.errors import BundleError

MANIFEST = "manifest.json"
MODEL = "model.onnx"
INPUTS = "model.json"
GOLDEN = "golden.json"
EXPLAIN = "explain.json"
IMPORTANCE = "importance.json"
REFERENCE = "reference.parquet"

MIB = 1 << 20
MAX_BYTES = {MODEL: 256 * MIB, INPUTS: 4 * MIB, GOLDEN: 4 * MIB, EXPLAIN: 64 * MIB, IMPORTANCE: 4 * MIB, REFERENCE: 256 * MIB}
"""The files of a bundle, and the most bytes that each may have: checked before one is read."""
MANIFEST_MAX_BYTES = 1 << 16
REQUIRED = (MODEL, INPUTS, GOLDEN)
"""A version without one of these is refused; the manifest may lack the others, as explain.json of a model that has none."""
SERVED = (MODEL, INPUTS, GOLDEN, EXPLAIN)
"""What a server reads."""

TAG = DIGEST_TAG
"""The tag of a version that has its digest."""
SHA256 = re.compile(r"[0-9a-f]{64}")

Fetch = Callable[[str, Path, int], bool]
"""Writes the file of that name to a path, at most so many bytes; returns False if there is none."""


@dataclass(frozen=True)
class Entry:
    """One file of a manifest: its SHA-256 in hexadecimal, and its size in bytes."""

    sha256: str
    size: int


Manifest = dict[str, Entry]


def seal(folder: Path) -> str:
    """Write the manifest of the bundle's files in `folder`; returns the bundle's digest.

    Raises:
        BundleError: a required file is missing, or a file is too large.
    """
    entries = {name: _entry(folder / name) for name in sorted(MAX_BYTES) if name in REQUIRED or (folder / name).exists()}
    write_json({"files": entries}, folder / MANIFEST)
    return digest(folder)


def _entry(path: Path) -> dict[str, Any]:
    content = _bytes(path, MAX_BYTES[path.name])
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def digest(folder: Path) -> str:
    """The digest of the bundle in `folder`, after every file was compared with the manifest.

    Raises:
        BundleError: a file is missing, or is not the one that the manifest names.
    """
    content = _bytes(folder / MANIFEST, MANIFEST_MAX_BYTES)
    manifest = parse_manifest(content)
    for name, entry in manifest.items():
        _verified(folder / name, entry)
    return hashlib.sha256(content).hexdigest()


def read(folder: Path, names: Iterable[str] = SERVED, *, expected: str | None = None) -> dict[str, bytes]:
    """The content of those files of the bundle in `folder`, each compared with the manifest; optional ones may be absent.

    `expected` is the bundle's registered digest; None where the reader does not know it.

    Raises:
        BundleError: the manifest is not the registered one, or a file is missing, too large, or not the one that it names.
    """
    manifest = parse_manifest(_bytes(folder / MANIFEST, MANIFEST_MAX_BYTES), expected)
    return {name: _verified(folder / name, manifest[name]) for name in names if name in manifest}


def fetch(get: Fetch, folder: Path, expected: str, names: Iterable[str] = SERVED) -> None:
    """Copy the manifest and those files of a bundle into `folder`, each compared with what was registered.

    Raises:
        BundleError: as `read`.
    """
    if not get(MANIFEST, folder / MANIFEST, MANIFEST_MAX_BYTES):
        raise BundleError("missing", f"{MANIFEST}: the version has none: train it again")
    manifest = parse_manifest(_bytes(folder / MANIFEST, MANIFEST_MAX_BYTES), expected)
    for name in names:
        if name not in manifest:
            continue
        if not get(name, folder / name, manifest[name].size):
            raise BundleError("missing", f"{name}: the manifest names it, and the version does not have it")
        _verified(folder / name, manifest[name])


def check_digest(tag: str) -> None:
    """Refuse what cannot be a registered digest.

    Raises:
        BundleError: it is not 64 hexadecimal digits, as of a version that was registered before bundles had a digest.
    """
    if not SHA256.fullmatch(tag):
        raise BundleError("digest", f"expected a SHA-256 in the version's tag `{TAG}`, got {tag!r:.40}: train it again")


def parse_manifest(content: bytes, expected: str | None = None) -> Manifest:
    """The files that a manifest lists.

    Raises:
        BundleError: it is not the registered one, or not a manifest.
    """
    if expected is not None:
        check_digest(expected)
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise BundleError("digest", f"{MANIFEST} has SHA-256 {found[:12]}…, the registry says {expected[:12]}…")
    files = parse_json(MANIFEST, content).get("files")
    if not isinstance(files, dict) or not set(REQUIRED) <= files.keys() <= MAX_BYTES.keys():
        raise BundleError("corrupt", f"{MANIFEST}: expected the files {', '.join(REQUIRED)}, and no unknown ones")
    return {name: _parse_entry(name, entry) for name, entry in files.items()}


def _parse_entry(name: str, entry: Any) -> Entry:
    match entry:
        case {"sha256": str(sha256), "size": int(size), **others} if not others and SHA256.fullmatch(sha256):
            if isinstance(size, bool) or not 0 <= size <= MAX_BYTES[name]:
                raise BundleError("corrupt", f"{MANIFEST}: {name}: expected at most {MAX_BYTES[name]} bytes, got {size!r:.20}")
            return Entry(sha256, size)
    raise BundleError("corrupt", f"{MANIFEST}: {name}: expected a SHA-256 and a size")


def _verified(path: Path, entry: Entry) -> bytes:
    content = _bytes(path, entry.size)
    if (found := hashlib.sha256(content).hexdigest()) != entry.sha256:
        raise BundleError("digest", f"{path.name} has SHA-256 {found[:12]}…, the manifest says {entry.sha256[:12]}…")
    return content


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise BundleError("missing", f"{path.name}: {error.strerror}") from error
    if len(content) > limit:
        raise BundleError("corrupt", f"{path.name}: expected at most {limit} bytes, got more")
    return content


def parse_json(name: str, content: bytes) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        BundleError: it is not JSON as RFC 8259 has it, is not an object, has a key twice, or is nested too deeply.
    """
    try:
        values = json.loads(content, object_pairs_hook=unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # ValueError: an integer of thousands of digits, and bytes that are not UTF-8
        raise BundleError("corrupt", f"{name}: not JSON: {reason(error)[:200]}") from error
    if not isinstance(values, dict):
        raise BundleError("corrupt", f"{name}: not a JSON object")
    return values


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict, for `json`'s `object_pairs_hook`.

    Raises:
        ValueError: a key is there twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return values


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def inputs_of(content: bytes) -> tuple[str, ...]:
    """The names of the model's inputs (k), in their order, of a bundle's `model.json`.

    Raises:
        BundleError: it lists none, one twice, or something that is not a text.
    """
    inputs = parse_json(INPUTS, content).get("inputs")
    names = inputs if isinstance(inputs, list) and all(isinstance(name, str) for name in inputs) else []
    if not names or len(set(names)) < len(names):
        raise BundleError("contract", f"{INPUTS}: expected the names of the inputs, each once")
    return tuple(names)
