"""Servers in processes of their own: start them, ask them, and see what they use."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import measure
from projects import BenchmarkError

HOST = "127.0.0.1"
START_S = 120
STOP_S = 20
POLL_S = 0.01
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Command:
    """How a server is started: `{port}` in its words is filled in; `ready` is the path that says 200 when it can answer."""

    name: str
    words: tuple[str, ...]
    cwd: Path
    ready: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Server:
    """A running server: its process, its port, and how long it took from the start of the process to ready."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    ready_s: float

    def post(self, path: str, body: bytes) -> bytes:
        """The answer to a JSON body.

        Raises:
            BenchmarkError: the answer is not 200.
        """
        status, answer = ask(self.port, "POST", path, body)
        if status != http.client.OK:
            raise BenchmarkError(f"{self.name}: POST {path}: {status}: {answer[:500]!r}")
        return answer

    def cpu_s(self) -> float:
        """Processor seconds that it and everything that it started have used until now."""
        return sum(_cpu_s(pid) for pid in tree(self.process.pid))

    def rss_mb(self) -> float:
        """Resident memory, with that of everything that it started."""
        return sum(_rss_mb(pid) for pid in tree(self.process.pid))

    def stop(self) -> None:
        """End it and everything that it started, those that have a session of their own too."""
        started = {pid: _began(pid) for pid in tree(self.process.pid)}
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid, began in started.items():
            if pid != self.process.pid and began and _began(pid) == began:
                os.kill(pid, signal.SIGKILL)


@contextmanager
def running(command: Command, log: Path) -> Iterator[Server]:
    """Start a server, wait until it is ready, stop it at the end.

    Raises:
        BenchmarkError: it ends before it is ready, or is not within `START_S`.
    """
    port = free_port()
    words = [word.format(port=port) for word in command.words]
    environment = measure._environment() | {name: value.format(port=port) for name, value in command.environment.items()}
    with log.open("wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(words, cwd=command.cwd, env=environment, stdout=out, stderr=out, start_new_session=True)
    server = Server(command.name, process, port, log, 0)
    try:
        while not _is_ready(port, command.ready):
            if process.poll() is not None or time.perf_counter() - began > START_S:
                raise BenchmarkError(f"{command.name} did not start ({process.poll()}):\n{log.read_text()[-3000:]}")
            time.sleep(POLL_S)
        yield Server(command.name, process, port, log, time.perf_counter() - began)
    finally:
        server.stop()


@contextmanager
def background(words: Sequence[str], cwd: Path, port: int) -> Iterator[None]:
    """Run a program that listens on the port, as a database does, until the end.

    Raises:
        BenchmarkError: it is not installed, or ends at once.
    """
    if not shutil.which(words[0]):
        raise BenchmarkError(f"{words[0]} is not installed; it is a system package: apt-get install {words[0]}")
    process = subprocess.Popen(words, cwd=cwd, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.perf_counter() + START_S
        while not _listens(port):
            if process.poll() is not None or time.perf_counter() > end:
                raise BenchmarkError(f"{words[0]} did not start ({process.poll()})")
            time.sleep(POLL_S)
        yield
    finally:
        process.terminate()
        process.wait(STOP_S)


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((HOST, port)) == 0


def ask(port: int, method: str, path: str, body: bytes | None = None, timeout_s: float = 30) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _is_ready(port: int, path: str) -> bool:
    try:
        return ask(port, "GET", path, timeout_s=2)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def free_port() -> int:
    """A free port."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def tree(root: int) -> list[int]:
    """A process and everything that it started, itself first."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(folder.name)):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (its third, by proc(5)); empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cpu_s(pid: int) -> float:
    # utime, stime, and those of the children that it has waited for.
    return sum(map(int, _stat(pid)[11:15])) / TICKS_PER_S


def _rss_mb(pid: int) -> float:
    return int((_stat(pid)[21:22] or ["0"])[0]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _began(pid: int) -> str:
    """When the process started, in ticks: with its number, this names it for good. Empty if it has ended."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""
