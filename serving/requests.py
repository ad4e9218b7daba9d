"""Counts answers by route, method and status, and writes a log line for each request that failed."""

import logging

from serving import metrics
from serving.http.bodies import OVERLOAD
from serving.problems import Unavailable

log = logging.getLogger(__name__)

UNGUARDED = frozenset({"/healthz", "/health", "/readyz", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Never shed, and never need a key: what orchestrators and Prometheus read."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Requests:
    """The answers since the last `count`."""

    def __init__(self, *, access_log: bool) -> None:
        self._access_log = access_log
        self._shed = 0
        self._durations: dict[tuple[str, str, int], list[float]] = {}

    def observe(self, route: str, method: str, status: int, duration_s: float, reason: str) -> None:
        """Remember an answer for `count`; tell the log of one that failed."""
        key = (route, method, status)
        if known := self._durations.get(key):
            known.append(duration_s)
        else:
            self._durations[key] = [duration_s]
        if reason == OVERLOAD:
            self._shed += 1  # logged once a second: a line for each would cost more than to answer them
        # An orchestrator hears every two seconds that the server is not ready; why it is not was logged once.
        is_usual = status < 400 or reason == OVERLOAD or (status == Unavailable.status and route in UNGUARDED)
        if not is_usual or self._access_log:
            facts = {
                "route": route,
                "method": method,
                "status": status,
                "reason": reason,
                "duration_ms": round(1e3 * duration_s, 3),
            }
            log.log(logging.WARNING if status >= 500 else logging.INFO, "request", extra=facts)

    def count(self) -> None:
        """Bring the metrics up to date, tell of what was shed: doing it for every request takes as long as answering it."""
        durations, self._durations = self._durations, {}
        shed, self._shed = self._shed, 0
        if shed:
            metrics.REFUSED.labels(OVERLOAD).inc(shed)
            log.warning("overload", extra={"refused": shed})
        for (route, method, status), given in durations.items():
            metrics.REQUESTS.labels(route, method if method in _METHODS else "other", str(status)).inc(len(given))
            metrics.observe_many(metrics.DURATION.labels(route), given)
