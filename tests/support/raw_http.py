"""HTTP byte by byte: what clients send that no HTTP library would, and the answers as they come."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from served import Running


@dataclass(frozen=True)
class Answer:
    """One answer: status, headers by their lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def read_answer(stream: IO[bytes], method: str = "GET") -> Answer:
    """The next answer in the stream, to a request of that method."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        assert name.lower() not in headers, line
        headers[name.lower()] = value.strip()
    has_body = method != "HEAD" and status >= 200 and status not in {204, 304}
    return Answer(status, headers, stream.read(int(headers["content-length"])) if has_body else b"")


class Client:
    """A connection."""

    def __init__(self, server: Running) -> None:
        at = urlsplit(server.url)
        self.socket = socket.create_connection((at.hostname or "", at.port or 0), timeout=60)
        self._stream: IO[bytes] = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, to a request of that method."""
        return read_answer(self._stream, method)

    def is_at_end(self) -> bool:
        """Whether the server ends the connection without a further byte."""
        try:
            return self._stream.read(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def connected(server: Running) -> Iterator[Client]:
    """A connection to the server."""
    client = Client(server)
    try:
        yield client
    finally:
        client.socket.close()


def request(method: str, path: str, *fields: str, body: bytes | None = None, version: str = "1.1") -> bytes:
    """A request; a body is JSON, and has its length unless a field says how it ends."""
    lines = [f"{method} {path} HTTP/{version}", "Host: here", *fields]
    if body is not None:
        lines.append("Content-Type: application/json")
        if not any(field.lower().startswith("transfer-encoding") for field in fields):
            lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def fetch(server: Running, data: bytes, method: str = "GET") -> Answer:
    """The answer to these bytes on a connection of their own."""
    with connected(server) as client:
        client.send(data)
        return client.answer(method)
