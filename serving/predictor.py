"""Scores requests: rows that wait at the same moment are scored in one run of the model.

Requests that arrive while a batch is scored form the next one: nothing waits for a timer, and a busy server spends less on a row.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from churn.contract import contradictions
from churn.domain.encoding import derive
from serving import metrics
from serving.log_rows import Entry
from serving.prediction_log import PredictionLog
from serving.problems import ClientDisconnected, Contradiction, NoModel, Overloaded
from serving.rows import columns_of, sliced
from serving.versions.model import Model

BATCH_ROWS = 2000
"""Rows of one batch, unless one request has more: what bounds the time that everything else waits."""

HIGH = 0.5
"""From this probability on (and from the threshold on) a customer's risk is high: more likely to leave than to stay."""


@dataclass(slots=True)
class Scored:
    """A request's rows as they were scored: identifiers, features, probabilities (n,), and the model that did it."""

    model: Model
    prediction_ids: list[str]
    customer_ids: list[str | None]
    features: dict[str, Any]
    rows: slice
    probability: list[float]

    def predictions(self) -> list[dict[str, Any]]:
        """One `serving.schemas.Prediction` per row."""
        threshold = self.model.threshold
        high = max(threshold, HIGH)
        return [
            {
                "prediction_id": prediction,
                "customer_id": customer,
                "churn_probability": each,
                "churn": each >= threshold,
                "risk": "high" if each >= high else "medium" if each >= threshold else "low",
            }
            for prediction, customer, each in zip(self.prediction_ids, self.customer_ids, self.probability, strict=True)
        ]

    def content(self) -> dict[str, Any]:
        """What makes a `serving.schemas.PredictResponse`."""
        return {"model_version": self.model.version, "predictions": self.predictions()}


class ResultHandler(Protocol):
    """Receives the result of one request, once."""

    def on_result(self, result: Scored | Exception) -> None:
        """Use the scores, or the reason why there are none; never raises: others of the batch come next."""

    def is_disconnected(self) -> bool:
        """Whether the result is no longer needed."""


class _FutureHandler:
    """Sets a future that is awaited."""

    __slots__ = ("future", "is_disconnected")

    def __init__(self, future: "asyncio.Future[Scored]") -> None:
        self.future = future
        self.is_disconnected = future.cancelled

    def on_result(self, result: Scored | Exception) -> None:
        if self.future.cancelled():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class _Waiting:
    __slots__ = ("arrived", "customer_ids", "handler", "has_result", "rows")

    def __init__(self, rows: Sequence[Mapping[str, Any]], customer_ids: list[str | None], handler: ResultHandler) -> None:
        self.rows = rows
        self.customer_ids = customer_ids
        self.handler = handler
        self.arrived = time.perf_counter()
        self.has_result = False

    def on_result(self, result: Scored | Exception) -> None:
        self.has_result = True
        self.handler.on_result(result)


class Predictor:
    """Scores rows with the model that serves, and logs them.

    `current` gives the model, or None; a request that waited longer than `deadline_s` is refused.
    """

    def __init__(self, current: Callable[[], Model | None], log: PredictionLog | None, *, deadline_s: float) -> None:
        self._current = current
        self._log = log
        self._deadline_s = deadline_s
        self._lines: dict[bool, deque[_Waiting]] = {False: deque(), True: deque()}
        self._scheduled = False
        # A counter after something random: unique, and a tenth of the cost of a UUID.
        self._prefix = os.urandom(8).hex()
        self._number = 0
        self._scored: list[tuple[npt.NDArray[np.float64], float]] = []

    async def score(self, rows: Sequence[Mapping[str, Any]], customer_ids: list[str | None], *, derived: bool = False) -> Scored:
        """Score rows of raw columns, or of every feature if they are `derived` already.

        Raises:
            Problem: there is no model, the rows contradict each other's columns, or the request waited too long.
        """
        future: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self.submit(rows, customer_ids, _FutureHandler(future), derived=derived)
        return await future

    def submit(
        self, rows: Sequence[Mapping[str, Any]], customer_ids: list[str | None], handler: ResultHandler, *, derived: bool = False
    ) -> None:
        """As `score`, without awaiting: `handler` gets the result."""
        self._lines[derived].append(_Waiting(rows, customer_ids, handler))
        if not self._scheduled:
            self._scheduled = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        for derived, line in self._lines.items():
            if line:
                self._score_or_fail(self._take(line), derived=derived)
        if any(self._lines.values()):
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _score_or_fail(self, batch: list[_Waiting], *, derived: bool) -> None:
        """Score a batch; if that fails, each request alone, so that only the one that caused it fails."""
        try:
            self._score(batch, derived=derived)
        except Exception as error:  # noqa: BLE001 - a request without a result would wait for ever
            waiting = [each for each in batch if not each.has_result]
            if not waiting:  # all were answered, and what failed came after
                asyncio.get_running_loop().call_exception_handler({"message": "after a batch was answered", "exception": error})
            if len(waiting) == 1:
                waiting[0].on_result(error)
                return
            for each in waiting:
                self._score_or_fail([each], derived=derived)

    def _take(self, line: deque[_Waiting]) -> list[_Waiting]:
        """The requests of the next batch; those that waited too long are refused, those whose client disconnected dropped."""
        batch: list[_Waiting] = []
        rows = 0
        late = time.perf_counter() - self._deadline_s
        while line and (not batch or rows + len(line[0].rows) <= BATCH_ROWS):
            each = line.popleft()
            if each.handler.is_disconnected():
                each.on_result(ClientDisconnected())
            elif each.arrived < late:
                each.on_result(Overloaded("deadline", f"waited longer than {self._deadline_s:g} s; try again later"))
            else:
                batch.append(each)
                rows += len(each.rows)
        return batch

    def _score(self, batch: list[_Waiting], *, derived: bool) -> None:
        if not batch:
            return
        model = self._current()
        if not model:
            for each in batch:
                each.on_result(NoModel())
            return
        columns = columns_of([row for each in batch for row in each.rows], derived=derived)
        if bad := _contradicting(columns):
            batch, columns = _without(batch, columns, bad)
            if not batch:
                return
        features = columns if derived else derive(columns)
        probability = model.probability(features)
        self._answer(model, batch, features, probability)

    def _answer(
        self, model: Model, batch: list[_Waiting], features: dict[str, Any], probability: npt.NDArray[np.float64]
    ) -> None:
        given = probability.tolist()
        first = self._number
        self._number += len(given)
        ids = [f"{self._prefix}{number:012x}" for number in range(first, self._number)]
        self._log_batch(model, batch, ids, features, probability)
        self._scored.append((probability, model.threshold))
        start = 0
        for each in batch:
            stop = start + len(each.rows)
            rows = slice(start, stop)
            each.on_result(Scored(model, ids[rows], each.customer_ids, features, rows, given[rows]))
            start = stop

    def count(self) -> None:
        """Bring the metrics up to date: done for every batch, it would take as long as encoding it."""
        scored, self._scored = self._scored, []
        if not scored:
            return
        probability = np.concatenate([each for each, _ in scored])
        churned = sum(int(np.count_nonzero(each >= threshold)) for each, threshold in scored)
        metrics.PREDICTIONS.labels("true").inc(churned)
        metrics.PREDICTIONS.labels("false").inc(len(probability) - churned)
        metrics.observe_many(metrics.PROBABILITY, probability)
        metrics.observe_many(metrics.BATCH_ROWS, [len(each) for each, _ in scored])

    def _log_batch(
        self, model: Model, batch: list[_Waiting], ids: list[str], features: dict[str, Any], probability: npt.NDArray[np.float64]
    ) -> None:
        if not self._log:
            return
        now = time.perf_counter()
        latencies = [1e3 * (now - each.arrived) for each in batch for _ in each.rows]
        customers = [name for each in batch for name in each.customer_ids]
        self._log.append(Entry(time.time(), model.version, model.threshold, ids, customers, features, probability, latencies))


def _contradicting(columns: dict[str, Any]) -> list[tuple[str, str, npt.NDArray[np.bool_]]]:
    return [(name, rule, np.asarray(bad)) for name, rule, bad in contradictions(columns)]


def _without(
    batch: list[_Waiting], columns: dict[str, Any], bad: list[tuple[str, str, npt.NDArray[np.bool_]]]
) -> tuple[list[_Waiting], dict[str, Any]]:
    """The batch without the requests that contradict themselves; each of those fails with the first rule that it breaks."""
    good: list[_Waiting] = []
    keep: list[npt.NDArray[np.intp]] = []
    start = 0
    for each in batch:
        stop = start + len(each.rows)
        broken = [(int(where[start:stop].argmax()), name, rule) for name, rule, where in bad if where[start:stop].any()]
        if broken:
            row, name, rule = min(broken)
            each.on_result(Contradiction(row, name, rule))
        else:
            good.append(each)
            keep.append(np.arange(start, stop))
        start = stop
    return good, sliced(columns, np.concatenate(keep)) if good else {}
