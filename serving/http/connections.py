"""The open connections of a worker: how many there may be, and how long each may stay without progress."""

import asyncio
import os
import socket
from collections.abc import Collection
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Protocol
from weakref import WeakKeyDictionary


@dataclass(frozen=True)
class Limits:
    """What a client may use before its request reaches the application."""

    head_bytes: int = 16 * 1024
    """Request target and header fields together, each field with its separators."""
    fields: int = 100
    """Header fields, with the trailer fields."""
    target_bytes: int = 8 * 1024
    """The request target: path and query."""
    head_s: float = 10
    """From the first byte of a head to its last."""
    idle_s: float = 5
    """A new connection on which no request has begun."""
    discard_bytes: int = 16 * 2**20
    """What is read and dropped of a body that is not needed."""
    linger_bytes: int = 2**20
    """What is read and dropped after a refusal that ends the connection, so that the client can read it."""
    discard_s: float = 10
    """How long such a body may take, and how long a client may take to receive its last answer."""
    stalled_s: float = 30
    """A client that neither sends its body nor receives its answer."""
    connections: int = 1024
    """Open connections of one worker."""
    held_bytes: int = 16 * 2**20
    """What all connections of one worker hold of requests that were sent ahead of an answer and are not parsed yet: of one
    connection it is what was read at once, at most 256 KiB."""


IDLE, HEAD, BODY, BUSY, DISCARDING, CLOSING = "idle", "head", "body", "busy", "discarding", "closing"
"""What a connection waits for: a request, the rest of a head, the rest of a body, an answer, the rest of a body that is not
needed, its end."""

State = tuple[str, int, int]
"""Phase, number of the request, and bytes still to be written: while it stays the same there is no progress."""

SWEEP_S = 1
CLOSED_TOGETHER = 32
"""How many idle connections are closed to make room for new ones: to find several takes as long as to find one."""


class Connection(Protocol):
    """What `Connections` uses of a connection."""

    transport: Any
    seen: tuple[State | None, float]
    """Its state at the last sweep, and since when."""

    def state(self) -> State:
        """Its present state."""

    def give_up(self, phase: str) -> None:
        """End it, because it stayed in that phase too long."""


class Connections:
    """The open connections of one worker, checked once a second: a timer for each would cost more than a small request."""

    def __init__(self, opened: Collection[Any], limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._open = opened
        self._limits = limits
        self._loop = loop
        self._held = 0
        self._sweeps = False
        self._closing = 0
        self._longest = {
            IDLE: limits.idle_s,
            HEAD: limits.head_s,
            BODY: limits.stalled_s,
            BUSY: limits.stalled_s,
            DISCARDING: limits.discard_s,
            CLOSING: limits.discard_s,
        }

    def added(self, connection: Connection) -> None:
        """Watch a new connection, which is among the open ones already; if there are too many, close others."""
        connection.seen = (None, self._loop.time())
        if len(self._open) - self._closing > self._limits.connections:
            self._make_room(connection)
        if not self._sweeps:
            self._sweeps = True
            self._loop.call_later(SWEEP_S, self._sweep)

    def holds(self, change: int) -> bool:
        """Count bytes that a connection holds more, or fewer; returns whether all of them together are within the limit."""
        self._held += change
        return self._held <= self._limits.held_bytes

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._open):
            state = connection.state()
            before, since = connection.seen
            if before != state:
                since = now if before else since
                connection.seen = (state, since)
            if now - since >= self._longest[state[0]]:
                connection.give_up(state[0])
        self._sweeps = bool(self._open)
        if self._sweeps:
            self._loop.call_later(SWEEP_S, self._sweep)

    def _make_room(self, newest: Connection) -> None:
        """Close those that have waited longest for their client; the newest, if every other waits for its answer."""
        by_phase: dict[str, list[Connection]] = {}
        for connection in self._open:
            if connection is not newest:
                by_phase.setdefault(connection.state()[0], []).append(connection)
        for phase, count in ((IDLE, CLOSED_TOGETHER), (HEAD, CLOSED_TOGETHER), (DISCARDING, 1), (BODY, 1)):
            if found := by_phase.get(phase):
                self._close(nsmallest(count, found, key=lambda connection: connection.seen[1]))
                return
        self._close([newest])

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.transport.close()
        # They are among the open ones until the event loop has run.
        self._closing += len(connections)
        self._loop.call_soon(self._closed, len(connections))

    def _closed(self, count: int) -> None:
        self._closing -= count


_by_worker: "WeakKeyDictionary[Any, Connections]" = WeakKeyDictionary()


def connections_of(worker: Any, limits: Limits, loop: asyncio.AbstractEventLoop) -> Connections:
    """The connections of the worker with this `uvicorn.server.ServerState`; always the same object."""
    if worker not in _by_worker:
        _by_worker[worker] = Connections(worker.connections, limits, loop)
    return _by_worker[worker]


def cut_off(transport: Any) -> None:
    """End a connection at once, even if its client does not receive what was written."""
    transport.abort()
    # uvloop's abort() does nothing after close(), which waits for the client.
    number = transport.get_extra_info("socket").fileno()
    if number >= 0:
        with socket.socket(fileno=os.dup(number)) as own:
            own.shutdown(socket.SHUT_RDWR)
