"""Every scored row goes to the prediction log, off the request path, in bounded memory, with exact counts."""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from churn.adapters.events.log import Sink, open_sink
from churn.errors import EventsError
from serving.log_rows import Entry, LogRows

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 30.0
DAY_US = 86_400_000_000
MALFORMED = (LookupError, AttributeError, TypeError, ValueError)


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

    A thread writes them. While the sink fails, rows wait and are tried again. When `capacity_rows` wait, new ones are refused and
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
        self._rows, self._full = LogRows(part_rows), list[LogRows]()
        self._made = 0
        self._reported_drops = 0
        # Held while one batch is added: never while something is converted or written.
        self._lock = threading.Lock()
        self._wake, self._closing, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Begin to write, in the process that appends: threads do not survive a fork."""
        # Arrow loads these, and pandas where it is installed, at the first need: now rather than while requests wait.
        import_module("pyarrow.parquet")
        pa.array([])
        self._thread.start()

    def append(self, entry: Entry) -> None:
        """Take one batch, or count its rows as dropped if there is not room for all; never waits, never raises."""
        rows = len(entry.prediction_ids)
        with self._lock:
            if self.queued_rows + rows > self._capacity_rows:
                self.dropped_rows += rows
                return
            if self._rows.size + rows > self._rows.capacity:
                self._full.append(self._rows)
                self._rows = LogRows(max(self._part_rows, rows))
            try:
                self._rows.add(entry)
            except MALFORMED as error:
                self.dropped_rows += rows
                # Its text may hold values.
                log.error("prediction log: %d rows cannot be logged (%s); they are dropped", rows, type(error).__name__)  # noqa: TRY400
                return
            self.queued_rows += rows
            is_full = bool(self._full) or self._rows.size >= self._rows.capacity
        if is_full and not self._wake.is_set():
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
        if self._thread.ident:
            self._thread.join(max(0.0, end - time.monotonic()))
        with self._lock:
            self._closed.set()
            lost, self.queued_rows = self.queued_rows, 0
            self.dropped_rows += lost
        if lost:
            log.warning("prediction log: closed with %d rows unwritten; they are dropped", lost)

    def _write(self) -> None:
        """The thread: rows become parts, which reach the sink in their order."""
        due = time.monotonic() + self._flush_s
        while not self._closing.is_set():
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            self._report_drops()
            is_due = time.monotonic() >= due
            self._write_rows(also_few=is_due)
            if is_due:
                due = time.monotonic() + self._flush_s
        self._write_rows(also_few=True)

    def _write_rows(self, *, also_few: bool) -> None:
        """Write what is full, and by time what is not."""
        with self._lock:
            waiting, self._full = self._full, []
            if self._rows.size and (also_few or self._rows.size >= self._rows.capacity):
                waiting.append(self._rows)
                self._rows = LogRows(self._part_rows)
        waiting.reverse()
        while waiting:
            for part in self._parts_of(waiting.pop().table()):
                self._write_part(part)

    def _parts_of(self, table: pa.Table) -> Iterator[Part]:
        """The rows of each day."""
        days = table["time"].cast(pa.int64()).to_numpy() // DAY_US
        found = np.unique(days)
        for day in found:
            self._made += 1
            yield Part(_name(self._made), table if len(found) == 1 else table.filter(pa.array(days == day)))

    def _report_drops(self) -> None:
        if self.dropped_rows > self._reported_drops:
            self._reported_drops = self.dropped_rows
            log.warning("prediction log: %d rows dropped so far, %d wait", self.dropped_rows, self.queued_rows)

    def _write_part(self, part: Part) -> None:
        delay_s = FIRST_RETRY_S
        while not self._closed.is_set():
            closing = self._closing.is_set()
            try:
                self._sink.write("predictions", part.rows, part.name)
            except EventsError as error:
                self.failed_flushes += 1
                log.warning("prediction log: %s; %d rows wait, next try in %g s", error, self.queued_rows, delay_s)
                self._report_drops()
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


def _name(number: int) -> str:
    """A name that no other worker and no restart gives: `<utc time>-<host>-<pid>-<sequence>`."""
    host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname())
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{host}-{os.getpid()}-{number:06d}"
