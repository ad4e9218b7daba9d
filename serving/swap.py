"""The version that serves: fetched from the registry, kept on disk, switched while requests run."""

import fcntl
import json
import logging
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from churn.errors import RegistryError
from churn.files import atomic_path, write_json
from churn.model_store import ModelStore, Released
from serving import metrics
from serving.models import METADATA, NEEDED, OPTIONAL, Model, ModelRefused, load

log = logging.getLogger(__name__)

RELEASE = "release.json"
FOLDER = re.compile(r"\.?\d+-[0-9a-f]{12}(\.\d+)?")
"""A version's folder, finished or not; nothing else in the shelf's folder is ours to delete."""
DIGEST = re.compile(r"[0-9a-f]{64}")
TICK_S = 0.5
"""How soon a rollback on disk is seen."""
JITTER = 0.2
"""By how much polls differ, so that many servers do not ask at once."""


class Shelf:
    """Versions that were good, on disk, newest use first; one of them may be pinned: then the registry is not asked."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def path(self, released: Released) -> Path:
        """Where the version's files are, or will be."""
        return self.folder / f"{released.number}-{released.digest[:12]}"

    def good(self) -> list[str]:
        """The names of the versions that served, last first."""
        return _names(self.folder / "good.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time: workers that share the folder fetch the same version at the same moment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # ends with the process, also when it is killed
            yield
        finally:
            os.close(folder)

    def remember(self, path: Path) -> None:
        """The version serves now; the oldest ones are deleted, and what a killed process left behind."""
        kept = [path.name, *(name for name in self.good() if name != path.name)][: self._keep]
        write_json({"names": kept}, self.folder / "good.json")
        for each in self.folder.iterdir():
            if each.name not in kept and FOLDER.fullmatch(each.name):
                shutil.rmtree(each, ignore_errors=True)

    def forget(self, path: Path) -> None:
        """Delete a version that is not good."""
        write_json({"names": [name for name in self.good() if name != path.name]}, self.folder / "good.json")
        shutil.rmtree(path, ignore_errors=True)

    @property
    def pinned(self) -> str:
        """The version that was rolled back to, or nothing."""
        return next(iter(_names(self.folder / "pinned.json")), "")

    def pin_previous(self) -> str:
        """Roll back to the version that served before the present one; returns its name.

        Raises:
            RegistryError: there is none on disk.
        """
        present, previous, *_ = *self.good(), "", ""
        if not previous:
            raise RegistryError(f"{self.folder}: keeps no version before {present or 'the first'}; promote one in the registry")
        write_json({"names": [previous]}, self.folder / "pinned.json")
        return previous

    def unpin(self) -> None:
        """Follow the registry again."""
        (self.folder / "pinned.json").unlink(missing_ok=True)


def _names(path: Path) -> list[str]:
    try:
        return list(json.loads(path.read_text())["names"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


class Swap:
    """Keeps `current` at the registry's production version, from a thread of its own; requests read it and never wait."""

    def __init__(self, store: ModelStore, shelf: Shelf, *, model: str, alias: str, poll_s: float) -> None:
        self.current: Model | None = None
        self.reason = "no version was looked for yet"
        self._store = store
        self._shelf = shelf
        self._name = (model, alias)
        self._poll_s = poll_s
        self._wake = threading.Event()
        self._closed = False
        self._refused: set[tuple[str, str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="swap", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; does not wait for a registry that hangs."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=1)

    def poke(self) -> None:
        """Look now rather than at the next poll."""
        self._wake.set()

    def _run(self) -> None:
        due, pinned = 0.0, ""
        while not self._closed:
            poked = self._wake.is_set()
            self._wake.clear()
            if poked or time.monotonic() >= due or self._shelf.pinned != pinned:
                pinned = self._shelf.pinned
                self.look()
                due = time.monotonic() + self._poll_s * random.uniform(1 - JITTER, 1 + JITTER)
            self._wake.wait(TICK_S)

    def look(self) -> None:
        """Serve what should be served now: what is pinned, else the production version, else the last good one."""
        if pinned := self._shelf.pinned:
            self._try(lambda: self._from_disk(pinned))
        else:
            self._try(self._from_registry)
        for name in self._shelf.good() if not self.current else ():
            if self._try(lambda name=name: self._from_disk(name)):  # type: ignore[misc]
                break

    def _try(self, serve: Callable[[], None]) -> bool:
        try:
            serve()
        except (RegistryError, OSError) as error:
            metrics.REGISTRY_FAILURES.inc()
            self.reason = str(error)
            log.warning("%s", error)
            return False
        except ModelRefused as error:
            self.reason = str(error)
            return False
        return True

    def _from_registry(self) -> None:
        released = self._store.of_alias(*self._name)
        metrics.REGISTRY_CHECKED.set(time.time())
        if not released:
            self.reason = f"the registry has no version of {self._name[0]} with the alias {self._name[1]}; run `make repro`"
            log.warning("%s", self.reason)
            return
        if self._serves(released):
            return
        if not DIGEST.fullmatch(released.digest):  # it names a folder
            error = ModelRefused("digest", f"the version's tag `onnx_sha256` is {released.digest!r:.40}: train it again")
            self._refuse(released, error)
            raise error
        with self._shelf.locked():
            self._serve(released, self._fetched(released))

    def _from_disk(self, name: str) -> None:
        path = self._shelf.folder / name
        with self._shelf.locked():
            try:
                released = Released.from_json((path / RELEASE).read_text())
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise RegistryError(f"{path}: not a version that was kept: {error}; delete it") from error
            if not self._serves(released):
                self._serve(released, path)

    def _serves(self, released: Released) -> bool:
        now = self.current
        wanted = (released.number, released.digest, released.tags.get("threshold"))
        return now is not None and (now.version, now.digest, now.tagged_threshold) == wanted

    def _fetched(self, released: Released) -> Path:
        """The folder with the version's files, fetched from the registry unless it is kept already."""
        path = self._shelf.path(released)
        if path.name in self._shelf.good():  # its digest is checked when it is loaded
            return path
        with atomic_path(path) as folder:
            folder.mkdir()
            for name in (*NEEDED, *OPTIONAL):
                self._store.fetch(released, name, folder / name)
        return path

    def _serve(self, released: Released, path: Path) -> None:
        began = time.perf_counter()
        try:
            model = load(path, released)
        except ModelRefused as error:
            self._refuse(released, error)
            if error.reason != METADATA or path.name not in self._shelf.good():  # with the tags that it had, it is still good
                self._shelf.forget(path)
            raise
        self.current = model
        metrics.SWAPS.inc()
        metrics.MODEL_VERSION.set(float(model.version))
        metrics.MODEL_CREATED.set(model.created_at.timestamp())
        metrics.MODEL_LOADED.set(time.time())
        log.info("version %s serves, checked and warmed in %.0f ms", model.version, 1e3 * (time.perf_counter() - began))
        with atomic_path(path / RELEASE) as temporary:
            temporary.write_text(released.as_json())
        self._shelf.remember(path)

    def _refuse(self, released: Released, error: ModelRefused) -> None:
        """Say it once, not at every poll."""
        known = (released.number, released.digest, error.reason)
        if known not in self._refused:
            self._refused.add(known)
            metrics.SWAPS_REFUSED.labels(error.reason).inc()
            log.error("version %s refused (%s): %s", released.number, error.reason, error)
