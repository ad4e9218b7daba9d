"""Files of a version's bundle where MLflow keeps them: a folder, or object storage."""

from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from churn.paths import BUNDLE


def fetch(location: str, name: str, out: Path, max_bytes: int) -> bool:
    """Write the file of that name to `out`; False if the version at `location` has none of that name.

    Raises:
        OSError, SourceError: the location cannot be read.
    """
    scheme, _, rest = location.partition("://")
    if scheme == "s3":
        return _from_s3(f"{rest}/{BUNDLE}/{name}", out, max_bytes)
    path = unquote(urlsplit(location).path) if scheme == "file" else location
    source = Path(path) / BUNDLE / name
    if not source.parent.is_dir():
        raise OSError("its files are gone")
    if not source.is_file():
        return False
    with source.open("rb") as stream, out.open("wb") as file:
        copy(stream, file, max_bytes)
    return True


def _from_s3(key: str, out: Path, max_bytes: int) -> bool:
    from churn.adapters.object_storage import s3

    try:
        with s3().open_input_stream(key) as stream, out.open("wb") as file:
            copy(stream, file, max_bytes)
    except FileNotFoundError:
        return False
    return True


def copy(source: Any, out: BinaryIO, max_bytes: int) -> int:
    """Copy at most one byte more than `max_bytes`, so that a larger file is detected; returns how many were copied."""
    copied = 0
    while chunk := source.read(min(1 << 16, max_bytes + 1 - copied)):
        out.write(chunk)
        copied += len(chunk)
    return copied
