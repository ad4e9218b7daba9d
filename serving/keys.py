"""API keys: which key a request has, whether its rights are enough for the route, and how many outcomes it may still report."""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from churn.domain.access import Right, parse_keys
from serving.problems import Forbidden, QuotaExceeded, Unauthorized

NEEDED = {
    "/predict": Right.PREDICT,
    "/predict/by-id": Right.PREDICT,
    "/explain": Right.PREDICT,
    "/invocations": Right.PREDICT,
    "/v2/models/{name}/infer": Right.PREDICT,
    "/v2/models/{name}/versions/{version}/infer": Right.PREDICT,
    "/page/score": Right.PREDICT,
    "/page/customer": Right.PREDICT,
    "/outcomes": Right.OUTCOMES,
    "/hooks/mlflow": Right.ADMIN,
}
"""The right that a route needs. The others, which say something of the server and change nothing, take any known key."""
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

    def check(self, presented: bytes | None, route: str) -> Key | None:
        """The key of a request, which presented these bytes (None: several that differ); None if no keys are configured.

        Raises:
            Unauthorized: there is none, it is unknown, or there are several.
            Forbidden: it lacks the right that the route needs.
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
        if (needed := NEEDED.get(route)) and needed not in found.rights:
            has = "+".join(sorted(found.rights))
            raise Forbidden(f"this API key lacks the right `{needed}`, it has `{has}`; use another, or add it in CHURN_API_KEYS")
        return found
