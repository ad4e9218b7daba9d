"""Files appear whole or not at all: written under a temporary name, then renamed."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or fill a folder at; it takes `path`'s place if the block ends well, else it is gone.

    The folders above are made. A folder that stood at `path` is replaced as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # In a container the process that was killed had the same number.
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def create_file(path: Path, text: str) -> bool:
    """Create a file with that text, durably, for one caller only; False if it is there already. The folders above are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A rename would take the place of a file that is there; a link does not.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_durably(path: Path, blocks: Iterable[Any]) -> None:
    """Write the blocks of bytes as a file, in place of one that is there; where this returns, it outlives a loss of power.

    The folders above are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `atomic_path`: two containers may write a part of the same name at the same time, by processes of the same number.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(values: Any, path: Path, *, digits: int = 6) -> None:
    """Write values as JSON that compares well: keys in their order, floats to `digits`, NaN as null, a newline at the end."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(rounded(values, digits), indent=2, allow_nan=False) + "\n")


def rounded(values: Any, digits: int = 6) -> Any:
    """The same nested values with every float rounded, so that files of two machines agree."""
    match values:
        case dict():
            return {key: rounded(value, digits) for key, value in values.items()}
        case list() | tuple():
            return [rounded(value, digits) for value in values]
        case float():
            return round(float(values), digits) if math.isfinite(values) else None
        case _:
            return values


def write_parquet(frame: "pd.DataFrame", path: Path) -> None:
    """Write a frame as Parquet, without its index."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; "none" where there is no such file."""
    if not path.exists():
        return "none"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
