"""Every scored row goes to the prediction log, off the request path, in bounded memory, with exact counts."""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn.adapters.events.log import Sink, open_sink, prediction_schema
from churn.contract import ENTITY
from churn.domain.encoding import Coded
from churn.errors import EventsError
from churn.features import FEATURES

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 30.0
FEW = 100
"""Entries that are converted at once: about 1 ms in which the event loop waits for the GIL again and again."""
PAUSE_S = 0.003
"""How long the event loop has the GIL to itself after that: with the smaller pieces it halves the p99 of requests."""
DAY_US = 86_400_000_000
MALFORMED = (LookupError, AttributeError, TypeError, ValueError, pa.ArrowException)


class Entry(NamedTuple):
    """One scored batch. `columns` has every feature, raw and derived, as an array or as `Coded`; none of it may change."""

    time_s: float
    version: str
    threshold: float
    prediction_ids: Sequence[str]
    customer_ids: Sequence[str | None]
    columns: Mapping[str, Any]
    probabilities: npt.NDArray[np.floating[Any]]
    latency_ms: Sequence[float]


class Part(NamedTuple):
    """Rows that are written together, under one name however often it is tried."""

    name: str
    rows: pa.Table


class Counts(NamedTuple):
    """Rows at one moment: appended = queued + written + dropped."""

    queued_rows: int
    written_rows: int
    dropped_rows: int


class PredictionLog:
    """Takes entries from the event loop and writes them as parts of `part_rows` rows, or every `flush_s` seconds.

    One thread turns entries into Arrow, the other writes them: a sink that hangs does not hold the first up, and Arrow is some
    thirty times smaller. While the sink fails, rows wait and are tried again. When `capacity_rows` wait, new ones are refused and
    counted: what is already waiting may be half written, so that only a refusal can be counted exactly.

    The numbers are plain attributes, `flushed_at` is the time of the last part that was written (Unix time; 0: none yet).
    """

    def __init__(
        self, sink: Sink | str | Path, *, capacity_rows: int = 100_000, part_rows: int = 10_000, flush_s: float = 5.0
    ) -> None:
        self.queued_rows = self.written_rows = self.dropped_rows = self.failed_flushes = 0
        self.flushed_at = 0.0
        self._sink = sink if isinstance(sink, Sink) else open_sink(sink)
        self._capacity_rows, self._part_rows, self._flush_s = capacity_rows, part_rows, flush_s
        self._entries: list[Entry] = []
        self._entry_rows = 0
        self._parts: SimpleQueue[Part | None] = SimpleQueue()
        self._made = 0
        self._reported_drops = 0
        # Held for a few additions only: never while something is converted or written.
        self._lock = threading.Lock()
        self._wake, self._closing, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"prediction-log-{target.__name__.strip('_')}", daemon=True)
            for target in (self._convert, self._write)
        ]

    def start(self) -> None:
        """Begin to write, in the process that appends: threads do not survive a fork."""
        # Arrow loads these, and pandas where it is installed, at the first need: now rather than while requests wait.
        import_module("pyarrow.parquet")
        pa.array([])
        for thread in self._threads:
            thread.start()

    def append(self, entry: Entry) -> None:
        """Take one request's rows, or count them as dropped if there is not room for all; never waits, never raises."""
        rows = len(entry.prediction_ids)
        with self._lock:
            if self.queued_rows + rows > self._capacity_rows:
                self.dropped_rows += rows
                return
            self.queued_rows += rows
            before = self._entry_rows
            self._entry_rows = after = before + rows
            self._entries.append(entry)
        if before < self._part_rows <= after:
            self._wake.set()

    def counts(self) -> Counts:
        """The numbers of rows, all of the same moment."""
        with self._lock:
            return Counts(self.queued_rows, self.written_rows, self.dropped_rows)

    def close(self, timeout_s: float) -> None:
        """Refuse new rows, write what waits, return within `timeout_s` seconds: what is not written by then counts as dropped."""
        end = time.monotonic() + timeout_s
        with self._lock:
            self._capacity_rows = -1  # so that `append` has one comparison to make
        self._closing.set()
        self._wake.set()
        for thread in self._threads:
            if thread.ident:
                thread.join(max(0.0, end - time.monotonic()))
        with self._lock:
            self._closed.set()
            lost, self.queued_rows = self.queued_rows, 0
            self.dropped_rows += lost
        if lost:
            log.warning("prediction log: closed with %d rows unwritten; they are dropped", lost)

    def _convert(self) -> None:
        """The first thread: entries become parts."""
        wait_s = self._flush_s
        while not self._closing.is_set():
            self._wake.wait(wait_s)
            self._wake.clear()
            self._report_drops()
            # Small parts would only pile up behind one that is not written yet.
            if is_due := self._entry_rows >= self._part_rows or self.queued_rows == self._entry_rows:
                self._make_parts()
            wait_s = self._flush_s if is_due else min(self._flush_s, FIRST_RETRY_S)
        self._make_parts()
        self._parts.put(None)

    def _make_parts(self) -> None:
        with self._lock:
            entries, self._entries, self._entry_rows = self._entries, [], 0
        days = [list(of_day) for _, of_day in groupby(entries, key=lambda each: _microseconds(each) // DAY_US)]
        del entries  # `_some` frees them little by little
        for same_day in days:
            rows = sum(len(each.prediction_ids) for each in same_day)
            try:
                table = pa.concat_tables([self._table_of(some) for some in _some(same_day)])
            except MALFORMED as error:
                # Its text may hold values.
                log.error("prediction log: %d rows cannot be logged (%s); they are dropped", rows, type(error).__name__)  # noqa: TRY400
                self._settle(rows, written=False)
                continue
            self._made += 1
            self._parts.put(Part(_name(self._made), table))

    def _table_of(self, entries: list[Entry]) -> pa.Table:
        table = to_table(entries)
        self._closing.wait(PAUSE_S)
        return table

    def _report_drops(self) -> None:
        if self.dropped_rows > self._reported_drops:
            self._reported_drops = self.dropped_rows
            log.warning("prediction log: %d rows dropped so far, %d wait", self.dropped_rows, self.queued_rows)

    def _write(self) -> None:
        """The second thread: parts reach the sink, in their order."""
        while part := self._parts.get():
            self._write_part(part)

    def _write_part(self, part: Part) -> None:
        delay_s = FIRST_RETRY_S
        while not self._closed.is_set():
            closing = self._closing.is_set()
            try:
                self._sink.write("predictions", part.rows, part.name)
            except EventsError as error:
                self.failed_flushes += 1
                log.warning("prediction log: %s; %d rows wait, next try in %g s", error, self.queued_rows, delay_s)
            else:
                self._settle(len(part.rows), written=True)
                return
            # Closing ends a long wait: one try at once, then the pace of a first failure.
            (self._closed if closing else self._closing).wait(FIRST_RETRY_S if closing else delay_s)
            delay_s = min(2 * delay_s, LAST_RETRY_S)

    def _settle(self, rows: int, *, written: bool) -> None:
        """Count rows that leave the queue, unless `close` has already counted them."""
        with self._lock:
            if self._closed.is_set():
                return
            self.queued_rows -= rows
            if written:
                self.written_rows += rows
                self.flushed_at = time.time()
            else:
                self.dropped_rows += rows


def to_table(entries: Sequence[Entry]) -> pa.Table:
    """The entries' rows in the order of `churn.adapters.events.log.prediction_schema`, categories dictionary-encoded."""
    lengths = [len(each.prediction_ids) for each in entries]
    probabilities = np.concatenate([each.probabilities for each in entries]).astype(np.float64)
    columns = {
        "prediction_id": pa.array([one for each in entries for one in each.prediction_ids], pa.string()),
        "time": pa.array(_repeated([*map(_microseconds, entries)], lengths), prediction_schema().field("time").type),
        ENTITY: pa.array([one for each in entries for one in each.customer_ids], pa.string()),
        **{
            each.name: _feature([one.columns[each.name] for one in entries], each.name, nullable=each.null_as is not None)
            for each in FEATURES
        },
        "churn_probability": pa.array(probabilities),
        "churn": pa.array(probabilities >= _repeated([each.threshold for each in entries], lengths)),
        "model_version": pa.array(_repeated([each.version for each in entries], lengths), pa.string()),
        "latency_ms": pa.array([one for each in entries for one in each.latency_ms], pa.float64()),
    }
    return pa.table(columns)


def _some(entries: list[Entry]) -> Iterator[list[Entry]]:
    """The entries, few at a time; they are taken out of the list, since to free many at once holds up every other thread."""
    entries.reverse()
    while entries:
        some, entries[-FEW:] = entries[-FEW:][::-1], []
        yield some


def _feature(given: Sequence[Any], name: str, *, nullable: bool) -> pa.Array:
    first = given[0]
    if isinstance(first, Coded):
        codes = np.concatenate([each.codes if each.values is first.values else _codes(each, first.values) for each in given])
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(first.values, pa.string()))
    values, kind = np.concatenate(given), prediction_schema().field(name).type
    if pa.types.is_boolean(kind) and values.dtype.kind == "f":  # 1, 0 and NaN
        return pa.array(values, from_pandas=nullable).cast(kind)
    return pa.array(values, kind, from_pandas=nullable)


def _codes(column: Coded, values: tuple[str, ...]) -> npt.NDArray[np.signedinteger[Any]]:
    """The codes of a column with the same texts in another order, as indices into `values`."""
    codes: npt.NDArray[np.int64] = np.array([*(values.index(each) for each in column.values), -1])[column.codes]
    return codes


def _microseconds(entry: Entry) -> int:
    return round(entry.time_s * 1e6)


def _repeated(values: Sequence[Any], lengths: Sequence[int]) -> npt.NDArray[Any]:
    """Each batch's value, once per row of it."""
    return np.repeat(np.array(values), lengths)


def _name(number: int) -> str:
    """A name that no other worker and no restart gives: `<utc time>-<host>-<pid>-<sequence>`."""
    host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname())
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{host}-{os.getpid()}-{number:06d}"
