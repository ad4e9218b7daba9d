"""An HTTP server that tests start: it sends the given responses, and keeps the requests."""

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class ReceivedRequest:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        """Its body."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Reply:
    """One answer; a status of 0 closes the connection without any."""

    status: int = 200
    content: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    drip_s: float = 0
    """Seconds between the bytes of the content; 0 sends all of it at once."""

    @classmethod
    def json(cls, status: int, body: Any) -> "Reply":
        """An answer in JSON."""
        return cls(status, json.dumps(body).encode(), (("Content-Type", "application/json"),))


class HttpServer:
    """Answers on a free port of this machine, with TLS if it is given a file with certificate and key; to be used in `with`."""

    def __init__(self, answer: Callable[[ReceivedRequest], Reply], certificate: Path | None = None) -> None:
        self.received: list[ReceivedRequest] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = ReceivedRequest(
                    self.command, self.path, {key.lower(): value for key, value in self.headers.items()}, content
                )
                with lock:
                    outer.received.append(request)
                reply = answer(request)
                self.close_connection = True
                if not reply.status:
                    return
                self.send_response(reply.status)
                for key, value in (*reply.headers, ("Content-Length", str(len(reply.content))), ("Connection", "close")):
                    self.send_header(key, value)
                self.end_headers()
                self.send_content(reply)

            def send_content(self, reply: Reply) -> None:
                if not reply.drip_s:
                    self.wfile.write(reply.content)
                for byte in reply.content if reply.drip_s else b"":
                    self.wfile.write(bytes([byte]))
                    time.sleep(reply.drip_s)

            do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        outer = self
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "HttpServer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Server(ThreadingHTTPServer):
    """Logs nothing about clients that disconnect, for example because they refuse its certificate."""

    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""
