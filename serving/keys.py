"""API keys: which key a request has, whether its rights are enough, and how many outcomes it may still report."""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from churn.domain.access import Right, parse_keys
from serving.problems import Forbidden, QuotaExceeded, Unauthorized

WINDOW_S = 3600


@dataclass
class Key:
    """A configured key, known by its SHA-256 digest."""

    digest: bytes
    rights: frozenset[Right]
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _window: float = field(default=0, repr=False)
    _reported: int = field(default=0, repr=False)

    @property
    def id(self) -> str:
        """The first 8 hexadecimal digits of the digest: they name the key in the log and open nothing."""
        return self.digest.hex()[:8]

    def report(self, outcomes: int, limit: int) -> None:
        """Count outcomes against the limit of the present hour, which begins with the first report after the last one ended.

        Raises:
            QuotaExceeded: they are too many; none of them is counted.
        """
        now = self.clock()
        if now >= self._window + WINDOW_S or not self._reported:
            self._window, self._reported = now, 0
        if self._reported + outcomes > limit:
            left, wait_s = limit - self._reported, max(1, -int(-(self._window + WINDOW_S - now) // 1))
            raise QuotaExceeded(
                f"expected at most {limit} outcomes of one key in an hour, {left} are left; report more in {wait_s} s", wait_s
            )
        self._reported += outcomes

    def take_back(self, outcomes: int) -> None:
        """Uncount outcomes that could not be kept."""
        self._reported = max(0, self._reported - outcomes)


class Keys:
    """The configured keys; without any, every request may do everything."""

    def __init__(self, configured: str) -> None:
        self._keys = [Key(bytes.fromhex(digest), rights) for digest, rights in parse_keys(configured).items()]

    def find(self, presented: bytes | None) -> Key | None:
        """The key of a request, which presented these bytes (None: several that differ); None if no keys are configured.

        Raises:
            Unauthorized: there is none, it is unknown, or there are several.
        """
        if not self._keys:
            return None
        if presented is None:
            raise Unauthorized("expected one API key, got several that differ; send one")
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self._keys:  # all of them, so that the time says nothing
            if hmac.compare_digest(digest, key.digest):
                found = key
        if not found:
            raise Unauthorized("expected one known API key; send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        return found


def require_right(key: Key, right: Right) -> None:
    """Refuse a key without the right.

    Raises:
        Forbidden: it lacks it.
    """
    if right not in key.rights:
        has = "+".join(sorted(key.rights))
        raise Forbidden(f"this API key lacks the right `{right}`, it has `{has}`; use another, or add it in CHURN_API_KEYS")


async def get_key(request: Request) -> Key | None:
    """The key of the request, which `RequestLimits` has found; None if no keys are configured."""
    key: Key | None = request.state.key
    return key


KeyDep = Annotated[Key | None, Depends(get_key)]


@dataclass(frozen=True)
class Requires:
    """A dependency of a route: the right that the key needs. `RequestLimits` checks it too, before a body is read."""

    right: Right

    async def __call__(self, key: KeyDep) -> None:
        """Refuse a key without the right."""
        if key:
            require_right(key, self.right)
