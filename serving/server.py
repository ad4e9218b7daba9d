"""Everything that one worker holds: the version that serves, the predictor, the log, the stores."""

import asyncio
from typing import Any

from churn.adapters.events.log import open_sink
from churn.adapters.mlflow import model_store
from churn.adapters.online_store import reader as online_store
from churn.settings import Serving
from serving import metrics
from serving.middleware import RequestLimits
from serving.prediction_log import PredictionLog
from serving.predictor import Predictor
from serving.problems import NoModel
from serving.service import Service
from serving.versions.cache import VersionCache
from serving.versions.model import Model
from serving.versions.swap import Limits, Swap

REGISTRY_TIMEOUT_S = 3
"""Of one answer of the registry: when it hangs at the start, the last good version serves within 10 s."""
CLOSE_S = 10
"""How long the prediction log may take to drain."""


class Server:
    """One worker's parts; `create_app` sets `requests`."""

    def __init__(self, settings: Serving) -> None:
        self.settings = settings
        store = model_store.connect(settings.tracking_uri, timeout_s=REGISTRY_TIMEOUT_S)
        self.cache = VersionCache(settings.models, settings.kept_models)
        limits = Limits(settings.download_timeout_s, settings.check_timeout_s, settings.check_memory_mib << 20)
        self.swap = Swap(store, self.cache, uri=settings.tracking_uri, poll_s=settings.poll_s, limits=limits)
        sink = open_sink(settings.events)
        self.log = PredictionLog(
            sink, capacity_rows=settings.log_capacity_rows, part_rows=settings.log_part_rows, flush_s=settings.log_flush_s
        )
        self.predictor = Predictor(
            lambda: self.swap.current, self.log if settings.log_capacity_rows else None, deadline_s=settings.deadline_s
        )
        online = online_store.connect(settings.online_store, timeout_s=settings.store_timeout_s)
        self.service = Service(settings, self.predictor, online, sink)
        self.draining = False
        self.requests: RequestLimits
        self._counted: dict[Any, int] = {}

    def start(self) -> None:
        """Begin to poll the registry, and to write the log."""
        self.log.start()
        self.swap.start()

    def count(self) -> None:
        """Bring the metrics up to the counts of the log and of the requests."""
        self.requests.count()
        self.predictor.count()
        queued, written, dropped = self.log.counts()
        now = {metrics.LOG_WRITTEN: written, metrics.LOG_DROPPED: dropped, metrics.LOG_FAILURES: self.log.failed_flushes}
        metrics.LOG_QUEUED.set(queued)
        for counter, value in now.items():
            counter.inc(value - self._counted.get(counter, 0))
        self._counted = now

    async def keep_counting(self) -> None:
        """Count every second: the metrics may be read from another worker."""
        while True:
            self.count()
            self.requests.give_up_on_slow_bodies()
            await asyncio.sleep(1)

    def model(self) -> Model:
        """The version that serves.

        Raises:
            NoModel: there is none.
        """
        if not self.swap.current:
            raise NoModel(self.swap.reason)
        return self.swap.current

    def require_ready(self) -> None:
        """Refuse if requests should go elsewhere.

        Raises:
            NoModel: no version is loaded, or the server is stopping.
        """
        if self.draining:
            raise NoModel("draining: the server is stopping")
        self.model()

    async def close(self) -> None:
        """Write what is logged, let everything go."""
        await asyncio.to_thread(self.log.close, CLOSE_S)
        self.count()
        self.service.close()
        await asyncio.to_thread(self.swap.close)
        metrics.leave()
