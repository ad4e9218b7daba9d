"""Damaged bundles: one file of a good one is mutated, and the manifest agrees with it."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from churn.adapters import bundle
from churn.domain.version import Version
from churn.errors import BundleError
from serving.versions import check, isolated
from serving.versions.isolated import Failed
from serving.versions.model import load

TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1e-999", b"null", b"true", b'""', b"{}", b"[]", b"[[]]", b'{"a": {"a": 1}}'),
    *(b"9" * 400, b"9" * 5000, b"-" + b"9" * 30, b"1" + b"0" * 18 + b".5", b'"\\ud800"', b"\xff\xfe", b"\x00"),
    *(b"[" * 3000, b'"../../x"'),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *("", "x", "1", "ü" * 1000, "member_months", "../../x", [], [[]], {}, [None], {"a": []}, [[1], [2, 3]], ["a"] * 100),
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three changes: of bytes, or of values where it is JSON."""
    for _ in range(rng.randint(1, 3)):
        content = rng.choice([_flip, _cut, _double, _insert, *[_value] * 8])(content, rng)
    return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randint(0, len(content)) for _ in range(2))
    return content[:start] + content[stop:]


def _double(content: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randint(0, len(content)) for _ in range(2))
    return content[:stop] + content[start:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(content))
    return content[:place] + rng.choice(TOKENS) + content[place + rng.randint(0, 4) :]


def _value(content: bytes, rng: random.Random) -> bytes:
    """Another value at some place of the document; what is not JSON any more is flipped."""
    try:
        document = json.loads(content)
        holder, key = rng.choice(list(_places(document)))
    except (ValueError, IndexError, RecursionError):
        return _flip(content, rng)
    holder[key] = rng.choice(VALUES)
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document; of long lists the first and the last."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    else:
        keys = sorted({*range(min(3, len(value))), len(value) - 1}) if isinstance(value, list) and value else []
    for key in keys:
        yield value, key
        yield from _places(value[key])


def damaged(files: dict[str, bytes], rng: random.Random, names: tuple[str, ...]) -> dict[str, bytes]:
    """The files with one of those names mutated."""
    name = rng.choice(names)
    return files | {name: mutated(files[name], rng)}


def parse_in_process(files: dict[str, bytes], released: Version, rounds: int, seed: int) -> dict[str, int]:
    """Parse so many damaged bundles here; returns how many were refused for which reason, "" for those that load.

    Whatever else than a refusal is raised escapes.
    """
    rng, found = random.Random(seed), dict[str, int]()
    manifest = manifest_of(files)

    def parsed() -> None:
        if rng.random() < 0.3:
            bundle.parse_manifest(mutated(manifest, rng))
        else:
            load(damaged(files, rng, (bundle.INPUTS, bundle.GOLDEN, bundle.EXPLAIN)), released)

    for _ in range(rounds):
        reason = _reason(parsed)
        found[reason] = found.get(reason, 0) + 1
    return found


def load_isolated(files: dict[str, bytes], released: Version, folder: Path, rounds: int, seed: int) -> dict[str, int]:
    """Check so many damaged bundles as a server does, most of them with a damaged model; returns as `parse_in_process`."""
    rng, found = random.Random(seed), dict[str, int]()
    names = (bundle.MODEL, bundle.MODEL, *bundle.SERVED)
    for _ in range(rounds):
        changed = damaged(files, rng, names)
        manifest = manifest_of(changed)
        for name, content in (changed | {bundle.MANIFEST: manifest}).items():
            (folder / name).write_bytes(content)
        digest = hashlib.sha256(manifest).hexdigest()
        version = replace(released, tags=released.tags | {bundle.TAG: digest})
        job = check.job(version, folder, memory_bytes=384 << 20, seconds=20, nice=0)
        try:
            reason = isolated.run("serving.versions.check", job, seconds=20, stop=lambda: False).get("reason", "")
        except Failed:
            reason = check.RESOURCES
        found[reason] = found.get(reason, 0) + 1
    return found


def manifest_of(files: dict[str, bytes]) -> bytes:
    """A manifest that agrees with the files."""
    entries = {name: {"sha256": hashlib.sha256(files[name]).hexdigest(), "size": len(files[name])} for name in sorted(files)}
    return json.dumps({"files": entries}).encode()


def _reason(parse: Callable[[], None]) -> str:
    try:
        parse()
    except BundleError as error:
        return error.reason
    return ""
