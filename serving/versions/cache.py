"""The versions on disk that were good: for restarts, and for rolling back without the registry."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from churn.adapters.files import write_json
from churn.domain.reasons import reason
from churn.domain.version import Version
from churn.errors import RegistryError
from serving.versions import workers

RELEASE = "release.json"
FOLDER = re.compile(r"\.?\d+-[0-9a-f]{12}(\.\d+)?")
"""A version's folder, finished or not; nothing else in the cache's folder is deleted."""


@dataclass(frozen=True)
class Pin:
    """A version that was rolled back to: the name of its folder, and a token that no other pin has. Both empty: none is.

    `left` names the versions that were rolled back from since the registry was last followed.
    """

    name: str = ""
    token: str = ""
    left: tuple[str, ...] = ()


class VersionCache:
    """Versions that passed their check, on disk, last used first. One may be pinned: the registry is then not read."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def path(self, released: Version) -> Path:
        """Where the version's files are, or will be."""
        return self.folder / f"{released.number}-{released.digest[:12]}"

    def good(self) -> list[str]:
        """The names of the versions that served, last first."""
        return [name for name in _names(self.folder / "good.json") if isinstance(name, str) and FOLDER.fullmatch(name)]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time, for work on local files that takes milliseconds: every worker that shares the folder waits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # ends with the process, also when it is killed
            yield
        finally:
            os.close(folder)

    def released(self, name: str) -> Version:
        """What the registry said of the version in that folder when it served.

        Raises:
            RegistryError: it is not a version that was kept.
        """
        path = self.folder / name / RELEASE
        try:
            return Version.from_json(path.read_text())
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RegistryError(f"{path.parent}: not a version that was kept: {reason(error)}; delete it") from error

    def copy(self, name: str, out: Path) -> None:
        """Copy a kept version's files to a new folder.

        Raises:
            OSError: they cannot be read.
        """
        with self.locked():
            shutil.copytree(self.folder / name, out)

    def keep(self, folder: Path, released: Version) -> None:
        """Keep the version whose files are in `folder`, which is used up: it serves now.

        The oldest versions are deleted, and what dead workers left behind.
        """
        (folder / RELEASE).write_text(released.as_json())
        path = self.path(released)
        with self.locked():
            shutil.rmtree(path, ignore_errors=True)
            folder.rename(path)
            kept = [path.name, *(name for name in self.good() if name != path.name)][: self._keep]
            write_json({"names": kept}, self.folder / "good.json")
            for entry in self.folder.iterdir():
                if entry.name not in kept and FOLDER.fullmatch(entry.name):
                    shutil.rmtree(entry, ignore_errors=True)
            workers.clear_dead(self.folder)

    def forget(self, name: str) -> None:
        """Delete a version that is not good."""
        with self.locked():
            write_json({"names": [other for other in self.good() if other != name]}, self.folder / "good.json")
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @property
    def pin(self) -> Pin:
        """The version that was rolled back to."""
        try:
            values = json.loads((self.folder / "pinned.json").read_text())
            name, token = str(values["names"][0]), str(values.get("token", ""))
            left = tuple(map(str, values.get("left", ())))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return Pin()
        return Pin(name, token or name, left) if FOLDER.fullmatch(name) else Pin()

    def pin_previous(self) -> Pin:
        """Roll back to the version that served before the present one; repeated, further back, never to one that was left.

        Raises:
            RegistryError: there is none on disk.
        """
        good, pin = self.good(), self.pin
        present = pin.name or next(iter(good), "")
        left = (*pin.left, present)
        previous = next((name for name in good if name not in left), "")
        if not previous:
            raise RegistryError(
                f"{self.folder}: keeps no version before {version_of(present) or 'the first'}; promote one in the registry"
            )
        self.set_pin(new := Pin(previous, uuid4().hex, left))
        return new

    def set_pin(self, pin: Pin) -> None:
        """Serve the version of that pin, or follow the registry again where it names none."""
        path = self.folder / "pinned.json"
        if pin.name:
            write_json({"names": [pin.name], "token": pin.token, "left": list(pin.left)}, path)
        else:
            path.unlink(missing_ok=True)


def _names(path: Path) -> list[object]:
    try:
        return list(json.loads(path.read_text())["names"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def version_of(name: str) -> str:
    """The version's number in the name of its folder."""
    return name.partition("-")[0]
