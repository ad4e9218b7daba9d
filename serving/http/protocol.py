"""uvicorn's HTTP protocol with limits: for heads, for connections, and for the time that each may take.

Also what uvicorn leaves out of HTTP: answers keep their order whatever is refused, `Upgrade: h2c` is ignored without losing the
body, trailer fields are not header fields, and a request that proxies could read in two ways is refused.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.answers import last_answer
from serving.http.bodies import overloaded
from serving.http.connections import BODY, BUSY, CLOSING, DISCARDING, HEAD, IDLE, Limits, State, connections_of, cut_off
from serving.http.heads import check_head, check_upgrade, end_of_piece, origin_form, target_too_long, too_large, without_upgrade
from serving.problems import BadRequest, Problem, SlowHead

log = logging.getLogger(__name__)


class LimitedProtocol(HttpToolsProtocol):
    """The application may have `limits`, and `on_refused`, called with what is refused here."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.limits: Limits = getattr(self.app, "limits", Limits())
        self._on_refused: Callable[[Problem], None] = getattr(self.app, "on_refused", lambda problem: None)
        self.seen: tuple[State | None, float] = (None, 0.0)
        self._phase = IDLE
        self._requests = 0
        self._version = ""
        self._unused = self._discarded = 0
        self._held = b""
        self._is_upgrade = self._is_over = False
        self._keeps_alive = True
        self._problem: Problem | None = None
        self._last: Problem | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Watch the connection."""
        super().connection_made(transport)
        self._connections = connections_of(self.server_state, self.limits, self.loop)
        self._connections.added(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop every reference: in a reference cycle the last body would stay until the collector runs."""
        super().connection_lost(exc)
        if self._running:  # uvicorn marks the newest request alone
            self._running.disconnected = True
            self._running.message_event.set()
        self._hold(b"")
        self._problem = self._last = self._running = None
        self.scope = self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    def state(self) -> State:
        """What the connection waits for; see `Connections`."""
        is_answered = self.cycle is None or self.cycle.response_complete
        unsent = 0
        if self._is_over or self.transport.is_closing():
            phase = CLOSING
        elif self._phase == BODY and is_answered:
            phase = DISCARDING
        elif not is_answered:
            phase = BODY if self._phase == BODY else BUSY
            unsent = self.transport.get_write_buffer_size()
        else:
            phase = self._phase
        return phase, self._requests, unsent

    def give_up(self, phase: str) -> None:
        """End a connection that made no progress."""
        if phase == HEAD:
            self._refuse(SlowHead(f"the head of the request took longer than {self.limits.head_s:g} s; send it at once"))
        elif phase in {IDLE, DISCARDING}:
            self.transport.close()
        else:
            cut_off(self.transport)

    # What is received

    def data_received(self, data: bytes) -> None:
        """Parse, unless a request waits already for the answers before it."""
        if self._is_over:
            self._discard(len(data))
        elif self._held or self.pipeline:
            self._hold(self._held + data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse in pieces in which at most two requests begin; hold the rest back if one has to wait."""
        start, size = 0, len(data)
        while start < size:
            most = self.limits.head_bytes
            stop = end_of_piece(data, start, most - self._unused if self._phase == HEAD else most)
            if stop == start:
                self._refuse(too_large(self.limits))
                return
            self._feed(data if stop - start == size else data[start:stop])
            start = stop
            if self._is_over or self.transport.is_closing():
                return
            if self.pipeline:
                self._hold(data[start:])
                return

    def _hold(self, data: bytes) -> None:
        """Keep what cannot be parsed yet, and read no more; refuse it if all connections together keep too much."""
        change = len(data) - len(self._held)
        self._held = data
        is_within = not change or self._connections.holds(change)
        if data:
            self.flow.pause_reading()
            if not is_within:
                self._refuse(overloaded())

    def _feed(self, piece: bytes) -> None:
        before, requests = self._phase, self._requests
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_without_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self._problem and isinstance(error, httptools.HttpParserCallbackError):
                log.exception("a request could not be read")
            self._refuse(self._problem or BadRequest("expected HTTP/1.1; correct the request"))
        else:
            if self._phase != IDLE:
                self._bound_unused(len(piece), before, requests)

    def _bound_unused(self, size: int, before: str, requests: int) -> None:
        """Bound what is read before anything can be done with it: a head without end, trailer fields, extensions of chunks."""
        if (self._phase, self._requests) != (before, requests):
            self._unused = size if self._phase == HEAD and before == IDLE else 0
        elif self._unused < 0:  # a part of the body was in it
            self._unused = 0
        else:
            self._unused += size
            if self._unused > self.limits.head_bytes:
                self._refuse(too_large(self.limits))

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Read the head again without its wish for another protocol: the parser took the body for that protocol's."""
        head = without_upgrade(self.parser, self.url, self.headers)
        self._is_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(head)
        if rest and not self._is_over:
            self._feed(rest)

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > (self.limits.linger_bytes if self._is_over else self.limits.discard_bytes):
            self.transport.close()

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin_head()
        super().on_message_begin()

    def _begin_head(self) -> None:
        self._phase = HEAD
        self._requests += 1
        self._unused = self._discarded = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self.url += url
        if len(self.url) > self.limits.target_bytes:
            self._problem = target_too_long(self.limits)
            raise self._problem

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field, but no trailer field."""
        if self._phase == HEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check what the whole head says, and let the request begin."""
        self._version = self.parser.get_http_version()
        try:
            self.expect_100_continue = check_head(self.headers, self._version, self.limits)
            if self.parser.should_upgrade():
                check_upgrade(self.parser.get_method(), self.headers)
                self._is_upgrade = True
                return
            if self.url[:1] != b"/":
                self.url = origin_form(self.url, self.parser.get_method())
        except Problem as problem:
            self._problem = problem  # the parser hides what is raised
            raise
        self._phase = BODY
        self._begin()

    def _begin(self) -> None:
        """Let the application have the request, by ASGI."""
        super().on_headers_complete()
        if self.expect_100_continue:
            # A client that gets its answer instead of `100 Continue` may leave its body out: what follows would be read as one.
            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, unless the answer did not wait for it."""
        self._unused = -1
        if self.cycle.response_complete:
            self._discard(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._is_upgrade:
            return
        self._phase = IDLE
        if self.expect_100_continue and not self.cycle.response_started:
            self.cycle.keep_alive, self.cycle.waiting_for_100_continue = self._keeps_alive, False
        super().on_message_complete()

    # What is answered

    def on_response_complete(self) -> None:
        """Let follow what waited for this answer: the next request, a refusal, or data that is not parsed yet."""
        if self._last and not self.pipeline:
            self._send_refusal(self._last)
            return
        if self.cycle and self.cycle.body and self.cycle.response_complete:
            self.cycle.body = bytearray()  # what came of it and was not needed; the connection may stay
        if self.pipeline:
            super().on_response_complete()
        else:
            # uvicorn sets a timer here and cancels it with the next request; `Connections` closes what is idle at no cost.
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        if self._held:
            self.flow.pause_reading()
            if not self.pipeline:
                self.loop.call_soon(self._parse_held)

    def _parse_held(self) -> None:
        if self.pipeline or self.transport.is_closing():
            return
        held = self._held
        self._hold(b"")
        self._parse(held)
        if not self._held and not self._is_over:
            self.flow.resume_reading()

    def _refuse(self, problem: Problem) -> None:
        """Answer what cannot be read after the answers that are due before it, and end the connection."""
        self._is_over = True
        self._hold(b"")
        cycle = self.cycle
        if self._phase == BODY and cycle:  # the request has begun
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()  # but waits for those before it
            elif cycle.response_started or cycle.response_complete:
                self.transport.close()
                return
            else:
                cycle.disconnected = cycle.response_complete = True
                cycle.message_event.set()
        if self.pipeline or (cycle and not cycle.response_complete):
            self._last = problem
        else:
            self._send_refusal(problem)

    def _send_refusal(self, problem: Problem) -> None:
        self._on_refused(problem)
        if self.transport.is_closing():
            return
        is_head = bool(self.url) and self.parser.get_method() == b"HEAD"
        head, body = last_answer(problem, self.server_state.default_headers)
        self.transport.write(head if is_head else head + body)
        # Not closed yet: a client that is still sending would get an error, and not read this.
        self.transport.write_eof()
        self.flow.resume_reading()


def make_protocol(config: Any, **given: Any) -> LimitedProtocol:
    """A protocol of the class that the application names as `protocol`, else a `LimitedProtocol`; for uvicorn's `http`."""
    kind: type[LimitedProtocol] = getattr(config.loaded_app, "protocol", LimitedProtocol)
    return kind(config, **given)
