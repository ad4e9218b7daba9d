"""Every metric of the server, named once. With several workers, `PROMETHEUS_MULTIPROC_DIR` is set before this is imported."""

import fcntl
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.registry import REGISTRY


def _hold_lock() -> None:
    """Lock a file until this process ends, by which other workers know that its gauges count."""
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        fcntl.lockf(os.open(Path(folder, f"{os.getpid()}.lock"), os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)


# Before the first gauge creates its file: a gauge's file without a lock belongs to a dead worker.
_hold_lock()

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

REQUESTS = Counter("churn_http_requests", "Requests by route, method and status", ["route", "method", "status"])
DURATION = Histogram("churn_http_request_duration_seconds", "Time from the first byte to the answer", ["route"], buckets=SECONDS)
IN_FLIGHT = Gauge("churn_http_requests_in_flight", "Requests at work", multiprocess_mode="livesum")
REFUSED = Counter("churn_http_requests_refused", "Requests refused before any work", ["reason"])

PREDICTIONS = Counter("churn_predictions", "Scored rows by decision", ["churn"])
PROBABILITY = Histogram(
    "churn_probability", "Scored churn probabilities", buckets=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
)
BATCH_ROWS = Histogram(
    "churn_batch_rows", "Rows that were scored in one run of the model", buckets=(1, 2, 4, 8, 16, 64, 256, 1000)
)

MODEL_VERSION = Gauge("churn_model_version", "Number of the version that is serving", multiprocess_mode="livemax")
MODEL_CREATED = Gauge("churn_model_created_timestamp_seconds", "When that version was registered", multiprocess_mode="livemax")
MODEL_LOADED = Gauge("churn_model_loaded_timestamp_seconds", "When it began to serve here", multiprocess_mode="livemax")
SWAPS = Counter("churn_model_swaps", "Versions that began to serve")
SWAPS_REFUSED = Counter("churn_model_swaps_refused", "Versions that were refused", ["reason"])
SWAP_ERRORS = Counter("churn_model_swap_errors", "Rounds of the swap loop that ended with an unexpected error")
SWAP_ALIVE = Gauge(
    "churn_model_swap_loop_timestamp_seconds", "When the swap loop last completed a round", multiprocess_mode="livemin"
)
REGISTRY_CHECKED = Gauge(
    "churn_registry_checked_timestamp_seconds", "When the registry last answered", multiprocess_mode="livemin"
)
REGISTRY_FAILURES = Counter("churn_registry_failures", "Polls of the registry that failed")

STORE_DURATION = Histogram("churn_online_store_duration_seconds", "Time of a look-up in the online store", buckets=SECONDS)
STORE_FAILURES = Counter("churn_online_store_failures", "Look-ups that failed or took too long", ["reason"])

LOG_QUEUED = Gauge("churn_prediction_log_queued_rows", "Scored rows that wait to be written", multiprocess_mode="livesum")
LOG_WRITTEN = Counter("churn_prediction_log_written_rows", "Scored rows in the log")
LOG_DROPPED = Counter("churn_prediction_log_dropped_rows", "Scored rows that were not logged")
LOG_FAILURES = Counter("churn_prediction_log_failed_flushes", "Parts that could not be written at the first try")
OUTCOMES = Counter("churn_outcomes", "Outcomes that were reported")


def observe_many(histogram: Histogram, values: npt.ArrayLike) -> None:
    """`histogram.observe(value)` of every value, at a fraction of the cost: observing one by one takes as long as scoring.

    The library has no such call; this is what its own does to a bucket and to the sum.
    """
    rows = np.searchsorted(histogram._upper_bounds, values, side="left")
    for bucket, count in enumerate(np.bincount(rows).tolist()):
        if count:
            histogram._buckets[bucket].inc(count)
    histogram._sum.inc(float(np.sum(values)))


def exposition() -> bytes:
    """All metrics in Prometheus' text format; of all workers where several share the port."""
    if not (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")):
        return generate_latest(REGISTRY)
    _drop_gauges_of_dead_workers(Path(folder))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def leave() -> None:
    """This worker's gauges no longer count."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _drop_gauges_of_dead_workers(folder: Path) -> None:
    """Remove the gauges of workers that ended without `leave`, as when they are killed. Their counters and histograms stay."""
    # A lock and not the process table: another process may have the process id of a dead worker.
    for pid in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")} - {os.getpid()}:
        with (folder / f"{pid}.lock").open("ab") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # it lives
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
