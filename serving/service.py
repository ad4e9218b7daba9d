"""What the API does: scores, reasons, outcomes. The endpoints of every protocol and the fast path call it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from churn.adapters.events import log as events
from churn.adapters.events.log import Sink
from churn.adapters.moments import CLOCK_SKEW
from churn.adapters.online_store.reader import OnlineStore, Stored
from churn.contract import ENTITY, FEATURE_TTL, LABEL
from churn.errors import EventsError, FeatureStoreError
from churn.features import FEATURES
from churn.settings import Serving
from serving import metrics
from serving.explain import explanations
from serving.json_bodies import in_words
from serving.keys import Key
from serving.predictor import Predictor, ResultHandler, Scored
from serving.problems import Invalid, LogDown, NotFound, Overloaded, StoreDown, TooLarge
from serving.schemas import CUSTOMERS, ExplainRequest, ExplainResponse, OutcomesRequest, OutcomesResponse

Rows = Sequence[Mapping[str, Any]]

READERS = 8
"""Threads that read the online store."""
READS_SHARE = 0.75
"""The share of the requests in flight that may wait for the online store: one that hangs must not take every place."""
EXPLAINED_ROWS = 100
"""The most rows that are explained at once: one takes as long as a hundred scores."""
LISTED = 3
NEEDED = tuple(each.name for each in FEATURES if each.null_as is None)
"""What a stored customer cannot lack; it does where a feature is new and was not materialised yet."""


class Service:
    """The API's actions on one predictor, one online store, and one sink for outcomes."""

    def __init__(self, settings: Serving, predictor: Predictor, store: OnlineStore, sink: Sink) -> None:
        self._settings = settings
        self._predictor = predictor
        self._store = store
        self._sink = sink
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="online-store")
        self._reads = 0

    def close(self) -> None:
        """Let the online store go; does not wait for a look-up that hangs."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    async def explain(self, request: ExplainRequest) -> ExplainResponse:
        """Scores of customers, inline or by identifier, with their reasons.

        Raises:
            Problem: as for their scores, or there are too many.
        """
        if len(request.customers or request.customer_ids or ()) > EXPLAINED_ROWS:
            raise TooLarge(f"more than {EXPLAINED_ROWS} rows to explain at once; send fewer")
        if request.customers is not None:
            scored = await self.score_inline(request.customers)
        else:
            scored = await self.score_by_id(request.customer_ids or [])
        return ExplainResponse.model_validate(await asyncio.to_thread(explanations, scored))

    async def outcomes(self, request: OutcomesRequest, reporter: Key | None) -> OutcomesResponse:
        """Store outcomes, with the key that reports them; returns when they are stored.

        Raises:
            Problem: they are too many, or could not be stored.
        """
        self._bounded(len(request.outcomes))
        reported = [
            {
                ENTITY: each.customer_id,
                "prediction_id": each.prediction_id,
                LABEL: each.churned,
                "observed_at": each.observed_at,
                "reporter": reporter.id if reporter else None,
            }
            for each in request.outcomes
        ]
        table = events.outcomes(reported, received_at=datetime.now(UTC))
        ids = table["outcome_id"].to_pylist()
        if reporter:
            reporter.report(len(ids), self._settings.outcomes_per_hour)
        try:
            # Named by what it says and by who says it: the same report, sent again, replaces itself and no other key's.
            name = "-".join([ids[0], str(len(ids)), _digest(ids), *([reporter.id] if reporter else [])])
            await asyncio.to_thread(self._sink.write, "outcomes", table, name)
        except EventsError as error:
            if reporter:
                reporter.take_back(len(ids))
            raise LogDown("the outcomes could not be kept; send them again later") from error
        metrics.OUTCOMES.inc(len(ids))
        return OutcomesResponse(outcome_ids=ids)

    async def score_inline(self, customers: Sequence[Any]) -> Scored:
        """Score validated customers."""
        return await self._predictor.score(*self._rows(customers))

    def submit(self, customers: Sequence[Any], handler: ResultHandler) -> None:
        """As `score_inline`, without awaiting: `handler` gets the result."""
        self._predictor.submit(*self._rows(customers), handler)

    async def score_rows(self, rows: Sequence[Any]) -> Scored:
        """Score rows that another protocol brought.

        Raises:
            Problem: as `/predict`.
        """
        self._bounded(len(rows))
        try:
            return await self.score_inline(CUSTOMERS.validate_python(rows))
        except ValidationError as error:
            raise Invalid(in_words(error.errors())) from None

    async def score_by_id(self, customer_ids: list[str]) -> Scored:
        """Score customers with the features that the online store has of them.

        Raises:
            Problem: a customer is unknown, its features are too old or not all there, or the store does not answer in time.
        """
        self._bounded(len(customer_ids))
        stored = await self._read(customer_ids)
        now = datetime.now(UTC)
        unknown = [name for name, found in zip(customer_ids, stored, strict=True) if found is None]
        if unknown:
            raise NotFound(f"unknown customers: {_some(unknown)}; correct the identifiers, or send their attributes to /predict")
        stale = [name for name, found in zip(customer_ids, stored, strict=True) if found and not is_fresh(found, now)]
        if stale:
            raise NotFound(
                f"customers without fresh features: {_some(stale)}; what is stored is not of the last {FEATURE_TTL.days} days "
                "(FEATURE_TTL): materialise newer rows, or use /predict"
            )
        lacking = [
            f"{name} ({', '.join(gaps)})"
            for name, found in zip(customer_ids, stored, strict=True)
            if found and (gaps := _missing(found.values))
        ]
        if lacking:
            raise NotFound(f"customers without all features: {_some(lacking)}; materialise them, or use /predict")
        rows = [found.values for found in stored if found]
        return await self._predictor.score(rows, list(customer_ids), derived=True)

    async def _read(self, customer_ids: list[str]) -> list[Any]:
        if self._reads >= READS_SHARE * self._settings.max_in_flight:
            metrics.STORE_FAILURES.labels("busy").inc()
            raise Overloaded("online_store_busy", "the online store has too many look-ups to do; try again later")
        self._reads += 1
        began = time.perf_counter()
        try:
            # No name for the future, and no `wait_for`, which has one: with its error it would be a reference cycle.
            async with asyncio.timeout(self._settings.store_timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._readers, self._store.read, customer_ids)
        except FeatureStoreError as error:
            metrics.STORE_FAILURES.labels("error").inc()
            raise StoreDown(f"{error}; /predict takes a customer's attributes meanwhile") from error
        except TimeoutError as error:
            metrics.STORE_FAILURES.labels("timeout").inc()
            waited = f"{self._settings.store_timeout_s:g} s"
            raise StoreDown(
                f"the online store took longer than {waited}; /predict takes a customer's attributes meanwhile"
            ) from error
        finally:
            self._reads -= 1
            metrics.STORE_DURATION.observe(time.perf_counter() - began)

    def _rows(self, customers: Sequence[Any]) -> tuple[Rows, list[str | None]]:
        self._bounded(len(customers))
        rows = [each.__dict__ for each in customers]
        return rows, [row[ENTITY] for row in rows]

    def _bounded(self, rows: int) -> None:
        if rows > self._settings.max_rows:
            raise TooLarge(f"{rows} rows at once; at most {self._settings.max_rows} are taken: send fewer")


def is_fresh(stored: Stored, now: datetime) -> bool:
    """True unless the features are older than the contract allows, or from the future; Feast itself serves them all the same."""
    return -CLOCK_SKEW <= now - stored.as_of <= FEATURE_TTL


def _missing(values: Mapping[str, Any]) -> list[str]:
    """The features that are not there and have no meaning as a null."""
    return [name for name in NEEDED if values[name] is None] if None in values.values() else []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _digest(ids: list[str]) -> str:
    return sha256("".join(ids).encode()).hexdigest()[:16]
