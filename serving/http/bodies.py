"""Reads the bodies of requests: within a size, a time, and what all of them together may take."""

import asyncio
import time
from typing import Any

from serving.problems import ClientDisconnected, Overloaded, Problem, TooLarge

OVERLOAD = "overload"
"""Why a request is shed."""
BODY_TIMEOUT_S = 10
UNFINISHED_BYTES = 32 * 2**20
"""What all bodies that are not whole yet may take together."""


class Bodies:
    """Bodies of at most `max_bytes` each."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._unfinished = 0
        self._reading: dict[asyncio.Task[Any], float] = {}

    async def read(self, receive: Any) -> bytes:
        """The whole body.

        Raises:
            Problem: it is too large, takes too long, or there are too many that are not whole.
            ClientDisconnected: the client closed its connection.
        """
        task: Any = asyncio.current_task()
        self._reading[task] = time.monotonic()
        try:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                return await self._rest(receive, body)
        except asyncio.CancelledError as error:
            if task in self._reading:  # the server itself is being stopped
                raise
            task.uncancel()
            raise Overloaded("slow_body", f"the body took longer than {BODY_TIMEOUT_S} s; send it faster") from error
        finally:
            self._reading.pop(task, None)
        if len(body) > self.max_bytes:
            raise self.too_large()
        return body

    def give_up_on_slow(self) -> None:
        """Refuse requests whose body takes too long. Called every second: a timer for each would cost more than reading most."""
        late = time.monotonic() - BODY_TIMEOUT_S
        for task in [task for task, began in self._reading.items() if began < late]:
            del self._reading[task]
            task.cancel()

    async def _rest(self, receive: Any, first: bytes) -> bytes:
        body = bytearray(first)
        self._unfinished += len(first)
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                part = message.get("body", b"")
                body += part
                self._unfinished += len(part)
                if len(body) > self.max_bytes:
                    raise self.too_large()
                if not message.get("more_body"):
                    return bytes(body)
                if self._unfinished > UNFINISHED_BYTES:
                    raise overloaded()
        finally:
            self._unfinished -= len(body)

    def too_large(self) -> Problem:
        """The refusal of a body that is too large."""
        return TooLarge(f"the body is larger than {self.max_bytes} bytes; send fewer rows at once")


def overloaded() -> Overloaded:
    """The refusal of a request for which there is no room."""
    return Overloaded(OVERLOAD, "more requests than this server can take; try again later")
