"""Going back to the version before, and following the registry again: what the running servers made of it, in one line."""

import time

from churn.errors import RegistryError
from serving.versions import workers
from serving.versions.cache import Pin, VersionCache, version_of
from serving.versions.workers import State

WAIT_S = 60
"""How long to wait for the workers: a tick, and a check of the version in a busy machine."""
POLL_S = 0.1


def roll_back(cache: VersionCache) -> str:
    """Serve the version that served before the present one; returns what the servers that share the folder serve then.

    Raises:
        RegistryError: there is none on disk, a server refuses it (nothing is changed then), or no server runs.
    """
    before = cache.pin
    pin = cache.pin_previous()
    version = version_of(pin.name)
    states = _wait(cache, pin.token)
    if not states:
        raise RegistryError(
            f"version {version} is pinned, but no server that shares {cache.folder} is running: it serves at the next start"
        )
    if refused := [state for state in states if state.serves != version]:
        cache.set_pin(before)
        raise RegistryError(
            f"nothing was rolled back: version {version} is refused: {refused[0].problem}; {_served(refused)} goes on"
        )
    return f"version {version} serves now, whatever the registry says ({_count(states)})"


def resume(cache: VersionCache) -> str:
    """Follow the registry again; returns what the servers that share the folder serve then.

    Raises:
        RegistryError: no server runs, or a server cannot serve what the registry says.
    """
    cache.set_pin(Pin())
    states = _wait(cache, "")
    if not states:
        raise RegistryError(
            f"nothing is pinned, but no server that shares {cache.folder} is running: it follows the registry at the next start"
        )
    serves = _served(states)
    if problems := [state.problem for state in states if state.problem]:
        raise RegistryError(f"nothing is pinned, but {serves} serves: {problems[0]}")
    return f"{serves} serves, as the registry says ({_count(states)})"


def _wait(cache: VersionCache, token: str) -> list[State]:
    """The states of the workers that live, once each of them has acted on that pin.

    Raises:
        RegistryError: one of them does not.
    """
    end = time.monotonic() + WAIT_S
    while True:
        states = workers.live(cache.folder)
        acted = [state for state in states if state and state.pin == token]
        if len(acted) == len(states):
            return acted
        if time.monotonic() > end:
            raise RegistryError(
                f"{len(states) - len(acted)} of {len(states)} workers that share {cache.folder} did not answer within "
                f"{WAIT_S} s; see their log, and `model_version` of /model"
            )
        time.sleep(POLL_S)


def _served(states: list[State]) -> str:
    return " and ".join(sorted({f"version {state.serves}" if state.serves else "no version" for state in states}))


def _count(states: list[State]) -> str:
    return f"{len(states)} worker{'s' if len(states) > 1 else ''}"
