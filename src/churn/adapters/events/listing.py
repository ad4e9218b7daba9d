"""What is in the folder of a day: the parts to read, and those that a compacted part replaces.

A compacted part names the parts that it replaces in its own metadata. Those may still be there: they are not read.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from churn.adapters.events.parts import SUFFIX, Damaged, DamagedPartError, Part, PartFile

REPLACES = b"churn.replaces"
"""The key in a compacted part's metadata: the names of the parts that it replaces, compressed by zlib, in hexadecimal."""


@dataclass(frozen=True)
class Listing:
    """A day's folder: the parts to read, sorted; those that a compacted part replaces; what is no part."""

    live: tuple[Part, ...] = ()
    replaced: tuple[Part, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    covered: frozenset[str] = frozenset()
    """The names of every part that was ever merged into one of `live`, those that are gone among them."""


def listing(filesystem: Any, folder: str, day: date, shown: Callable[[str], str]) -> Listing:
    """What is in the folder of a day; hidden and unfinished files are not listed.

    Raises:
        OSError: the storage is out of reach.
    """
    from pyarrow.fs import FileSelector, FileType

    parts, damaged = [], []
    for info in filesystem.get_file_info(FileSelector(folder, allow_not_found=True)):
        if not info.base_name.endswith(SUFFIX) or info.base_name.startswith((".", "_")):
            continue
        if info.type != FileType.File:
            damaged.append(Damaged(shown(info.path), "a folder, expected a Parquet file"))
            continue
        parts.append(Part(info.path, day, info.size, info.mtime))
    parts.sort(key=lambda part: part.path)
    compacted = [part for part in parts if part.is_compacted]
    if not compacted or len(parts) == 1:
        return Listing(tuple(parts), damaged=tuple(damaged))
    accepted, unusable, covered = _accepted(filesystem, compacted)
    damaged += [Damaged(shown(part.path), reason) for part, reason in unusable.items()]
    live = {part for part in parts if (part in accepted if part.is_compacted else part.name not in covered)}
    replaced = tuple(part for part in parts if part not in live and part not in unusable)
    return Listing(tuple(part for part in parts if part in live), replaced, tuple(damaged), covered)


def _accepted(filesystem: Any, compacted: Sequence[Part]) -> tuple[set[Part], dict[Part, str], frozenset[str]]:
    """The compacted parts to read, those that are damaged with the reason, and the names that the former replace.

    Two compactions at the same moment may leave two parts with common rows. Every reader then takes the larger, so that no row
    counts twice; what only the smaller replaces is still there, since nothing of it was deleted yet.
    """
    names: dict[Part, frozenset[str]] = {}
    unusable: dict[Part, str] = {}
    for part in compacted:
        try:
            names[part] = replaced_names(PartFile.opened(filesystem, part))
        except DamagedPartError as error:
            unusable[part] = str(error)
    accepted: set[Part] = set()
    covered = frozenset[str]()
    for part in sorted(names, key=lambda part: (-len(names[part]), part.name)):
        if covered.isdisjoint(names[part]) and part.name not in covered:
            accepted.add(part)
            covered |= names[part]
    return accepted, unusable, covered


def replaced_names(file: PartFile) -> frozenset[str]:
    """The names of the parts that were merged into a compacted one.

    Raises:
        DamagedPartError, ChangedError, OSError: as `PartFile.decoded`.
    """

    def names(parquet: Any) -> frozenset[str]:
        packed = (parquet.metadata.metadata or {}).get(REPLACES)
        if packed is None:
            raise ValueError("a compacted part without the names of what it replaces")
        try:
            return frozenset(zlib.decompress(bytes.fromhex(packed.decode())).decode().splitlines())
        except zlib.error as error:
            raise ValueError(f"a compacted part whose names cannot be read: {error}") from error

    return file.decoded(names)


def packed_names(names: Iterable[str]) -> str:
    """The names as they are kept in a compacted part's metadata."""
    return zlib.compress("\n".join(sorted(names)).encode(), 9).hex()
