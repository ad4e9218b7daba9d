"""A Redis that tests start."""

import socket
import subprocess
import time
from pathlib import Path

from ports import free_port
from requirements import need


class RedisServer:
    """A Redis of its own that can be stopped, and started again on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder, self._options = folder, options
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder), *self._options]
        self._process = subprocess.Popen([need("redis-server"), *arguments], stdout=subprocess.DEVNULL)
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
