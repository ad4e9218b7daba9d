"""The version that serves: taken from the registry or from disk, checked in a process of its own, changed while requests run."""

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from churn.adapters import bundle
from churn.adapters.mlflow.model_store import ModelStore, why_none
from churn.domain.version import Version
from churn.errors import BundleError, RegistryError
from churn.paths import CANDIDATE_ALIAS, MODEL, PRODUCTION
from serving import metrics
from serving.versions import check, fetch, isolated
from serving.versions.cache import Pin, VersionCache, version_of
from serving.versions.model import Model, ModelRefused, load
from serving.versions.workers import State, Worker

log = logging.getLogger(__name__)

TICK_S = 0.5
"""How soon a rollback on disk is seen."""
JITTER = 0.2
"""By how much polls differ, so that many servers do not ask at once."""
DAMAGED = ("digest", "missing", "corrupt")
"""The reasons for which a kept version is deleted; for others it may be good with other code, other tags or more memory."""
START_S = 5
"""How long a download may take while nothing serves and a version is on disk: then that one serves first."""
RETRY_S = 300
"""When a version that was refused is tried again: its files may have been repaired. A webhook makes it sooner."""

REGISTRY, BY_HAND, LAST_GOOD = "the registry's production version", "rolled back by hand", "the last good version on disk"
"""Why a version serves."""

Identity = tuple[str, str, str | None]


@dataclass(frozen=True)
class Limits:
    """What loading a version may cost: seconds to download it, seconds and bytes of address space to check it."""

    download_s: float = 60
    check_s: float = 30
    memory_bytes: int = 384 << 20


DEFAULTS = Limits()


class Swap:
    """Keeps `current` at the registry's production version, from a thread of its own; requests read it and never wait."""

    def __init__(self, store: ModelStore, cache: VersionCache, *, uri: str, poll_s: float, limits: Limits = DEFAULTS) -> None:
        self.current: Model | None = None
        self.reason = "the server has just started and has not read the registry yet; try again in a few seconds"
        self._store = store
        self._cache = cache
        self._worker = Worker(cache.folder)
        self._uri = uri
        self._poll_s = poll_s
        self._limits = limits
        self._wake = threading.Event()
        self._closed = False
        self._pin = Pin()
        self._checked: set[str] = set()
        self._refused: dict[Identity, tuple[float, BundleError]] = {}
        self._thread = threading.Thread(target=self._run, name="swap", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def close(self) -> None:
        """Stop polling; does not wait for a registry that hangs."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=1)
        self._worker.leave()

    def refresh(self) -> None:
        """Poll now, and try again a version that was refused."""
        self._wake.set()

    def _run(self) -> None:
        due = 0.0
        while not self._closed:
            try:
                due = self._round(due)
            except Exception:  # a border: whatever happens in one round, later swaps and rollbacks must be possible
                metrics.SWAP_ERRORS.inc()
                log.exception("swap: unexpected error; the version that serves goes on")
                due = time.monotonic() + self._poll_s
            metrics.SWAP_ALIVE.set(time.time())
            self._wake.wait(TICK_S)

    def _round(self, due: float) -> float:
        """Poll if it is due, or if a webhook or a rollback requests it; returns when the next poll is due."""
        is_requested = self._wake.is_set()
        self._wake.clear()
        if is_requested:
            self._refused = {identity: (0.0, error) for identity, (_, error) in self._refused.items()}
        if not is_requested and time.monotonic() < due and self._cache.pin == self._pin:
            return due
        self.poll()
        return time.monotonic() + self._poll_s * random.uniform(1 - JITTER, 1 + JITTER)

    def poll(self) -> None:
        """Serve what should be served now: what is pinned, else the production version, else the last good one."""
        with self._cache.locked():
            self._worker.join()
        before, self._pin = self._pin, self._cache.pin
        pin = self._pin
        is_served = self._try(lambda: self._from_disk(pin.name, BY_HAND)) if pin.name else self._try(self._from_registry)
        reason = self.reason
        for name in self._cache.good() if not self.current else ():
            if self._stop() or self._try(lambda name=name: self._from_disk(name, LAST_GOOD)):  # type: ignore[misc]
                break
        if not self._stop():
            state = State(self.current.version if self.current else "", pin.token, "" if is_served and self.current else reason)
            if pin != before:
                _log_change(pin, state)
            self._worker.report(state)

    def _stop(self) -> bool:
        """True if what is being loaded is no longer wanted: the server closes, or a person rolls back or resumes."""
        return self._closed or self._cache.pin != self._pin

    def _try(self, serve: Callable[[], None]) -> bool:
        try:
            serve()
        except isolated.Interrupted:
            return False
        except (RegistryError, OSError) as error:
            metrics.REGISTRY_FAILURES.inc()
            self.reason = str(error)
            log.warning("%s", error)
            return False
        except BundleError as error:
            self.reason = str(error)
            return False
        return True

    def _from_registry(self) -> None:
        released = self._store.of_alias(MODEL, PRODUCTION)
        metrics.REGISTRY_CHECKED.set(time.time())
        if not released:
            candidate = self._store.of_alias(MODEL, CANDIDATE_ALIAS)
            self.reason = why_none(candidate.number if candidate else "", candidate.tags if candidate else {})
            log.warning("%s", self.reason)
            return
        if self._serves(released):
            return
        retry_at, error = self._refused.get(_identity(released), (0.0, None))
        if error and time.monotonic() < retry_at:
            raise error
        self._serve(released, lambda folder: self._fetch(released, folder), REGISTRY)

    def _from_disk(self, name: str, why: str) -> None:
        released = self._cache.released(name)
        if self._serves(released):
            return
        try:
            self._serve(released, lambda folder: self._cache.copy(name, folder), why)
        except BundleError as refusal:
            if refusal.reason in DAMAGED:
                self._cache.forget(name)
            raise

    def _serves(self, released: Version) -> bool:
        now = self.current
        return now is not None and (now.version, now.digest, now.tagged_threshold) == _identity(released)

    def _serve(self, released: Version, get: Callable[[Path], None], why: str) -> None:
        """Make the version ready and switch to it; `get` fills a new folder with its files, `why` is for the log.

        All of it happens in a folder of this worker's own: no lock is held while a version is downloaded or checked, and what was
        checked is what is loaded.
        """
        began = time.perf_counter()
        folder = self._worker.work
        try:
            model = self._ready(released, folder, get)
            self.current = model
            metrics.SWAPS.inc()
            metrics.MODEL_VERSION.set(float(model.version))
            metrics.MODEL_CREATED.set(model.created_at.timestamp())
            metrics.MODEL_LOADED.set(time.time())
            took_ms = 1e3 * (time.perf_counter() - began)
            log.info("version %s serves: %s; checked and warmed in %.0f ms", model.version, why, took_ms)
            self._cache.keep(folder, released)
        except BundleError as refusal:
            self._refuse(released, refusal)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _ready(self, released: Version, folder: Path, get: Callable[[Path], None]) -> Model:
        bundle.check_digest(released.digest)  # it names a folder, as the number does
        if not released.number.isdecimal():
            raise ModelRefused("digest", f"the registry calls the version {released.number!r:.40}, which is no number")
        shutil.rmtree(folder, ignore_errors=True)
        get(folder)
        self._check(released, folder)
        return load(bundle.read(folder, expected=released.digest), released)

    def _fetch(self, released: Version, folder: Path) -> None:
        """Fill the folder from disk, if the version was kept and is intact, else from the registry."""
        name = self._cache.path(released).name
        if name in self._cache.good():
            try:
                self._cache.copy(name, folder)
                bundle.read(folder, expected=released.digest)
            except (OSError, shutil.Error, BundleError) as error:
                log.warning("%s: the kept version is damaged (%s); it is fetched again", self._cache.folder / name, error)
                shutil.rmtree(folder, ignore_errors=True)
            else:
                return
        folder.mkdir()
        seconds = self._limits.download_s
        if not self.current and self._cache.good():
            seconds = min(seconds, START_S)
        job = fetch.job(self._uri, released, folder, seconds=seconds)
        try:
            result = isolated.run("serving.versions.fetch", job, seconds=seconds, stop=self._stop)
        except isolated.Failed as failure:
            raise RegistryError(f"version {released.number}: its download failed: {failure}; check the artifact store") from None
        if "unreachable" in result:
            raise RegistryError(result["unreachable"])
        _raise(result)

    def _check(self, released: Version, folder: Path) -> None:
        """Load the version in another process first, unless this one has loaded the same bytes before."""
        if released.digest in self._checked:
            return
        limits = self._limits
        # While nothing serves, no request waits for the processor, and a start on a busy machine should not take longer.
        nice = check.NICE if self.current else 0
        job = check.job(released, folder, memory_bytes=limits.memory_bytes, seconds=limits.check_s, nice=nice)
        try:
            _raise(isolated.run("serving.versions.check", job, seconds=limits.check_s, stop=self._stop))
        except isolated.Failed as failure:
            raise ModelRefused(check.RESOURCES, f"loading it failed: {failure}") from None
        self._checked.add(released.digest)

    def _refuse(self, released: Version, error: BundleError) -> None:
        """Say it once, not at every poll."""
        _, known = self._refused.get(_identity(released), (0.0, None))
        self._refused[_identity(released)] = time.monotonic() + RETRY_S, error
        if known is None or known.reason != error.reason:
            metrics.SWAPS_REFUSED.labels(error.reason).inc()
            log.error("version %s refused (%s): %s", released.number, error.reason, error)


def _log_change(pin: Pin, state: State) -> None:
    """Log what came of a rollback by hand, or of following the registry again."""
    what = f"rollback by hand to version {version_of(pin.name)}" if pin.name else "the registry is followed again"
    serves = f"version {state.serves} serves" if state.serves else "no version serves"
    if state.problem:
        log.warning("%s: %s: %s", what, serves, state.problem)
    else:
        log.info("%s: %s", what, serves)


def _identity(released: Version) -> Identity:
    return released.number, released.digest, released.tags.get("threshold")


def _raise(result: dict[str, str]) -> None:
    if "reason" in result:
        raise ModelRefused(result["reason"], result.get("message", ""))
