"""A server as a process of its own, for what only shows on a real socket: clients that go away, kills, browsers."""

import atexit
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.programs import Program

_READY_SECONDS = 120.0
_OPTIONS = ("--http", "app.api.http_protocol:LimitedProtocol", "--no-access-log")


class ServerProcess:
    """A uvicorn with the application. `url` has no slash at its end; `output` is what it has logged so far."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"server-{self.port}.log"
        arguments = ("app.main:app", *_OPTIONS, "--port", str(self.port))
        self.process = Program("uvicorn", *arguments, folder=folder, log=self._log, settings=settings)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            try:
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[ServerProcess]:
    """Run a server in an empty folder, with `database_url` and whatever else it needs, until the block ends."""
    server = ServerProcess(folder, settings)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(60)
            except TimeoutError:
                server.process.kill()


def free_port() -> int:
    """Return a port that nobody listens on and that no other process of the tests is given as long as this one runs.

    It is below those that the system gives to outgoing connections at any moment.
    """
    for _ in range(100):
        port = random.randint(15000, 30000)  # noqa: S311 (a port number is no secret)
        reservation = socket.socket(type=socket.SOCK_DGRAM)  # UDP, so that a server may listen on the same port
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            reservation.bind(("127.0.0.1", port))
            atexit.register(reservation.close)  # which also keeps it until then
            return port
        reservation.close()
    raise OSError("No port is free")
