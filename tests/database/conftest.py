"""A PostgreSQL that a test may stop, start again, or freeze."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import EmbeddedPostgres
from tests.serving import free_port

_SETTINGS = {"fsync": "off", "shared_buffers": "4MB"}


class StoppableServer:
    """Keeps its address over restarts. It is up when a test begins and need not be when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()  # which no attempt to connect takes while the server is away
        self._server = EmbeddedPostgres(folder, self._port, _SETTINGS).start()
        self._is_up = True
        self.url = self._server.url

    def start(self) -> None:
        if not self._is_up:
            self._server = EmbeddedPostgres(self._folder, port=self._port, settings=_SETTINGS).start()
            self._is_up = True

    def stop(self) -> None:
        self._is_up = False
        self._server.stop()

    def freeze(self) -> None:
        """Stop every process of the server, so that it takes connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in [self._server.pid, *_children(self._server.pid)]:
            os.kill(pid, number)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="session")
def _stoppable_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoppableServer]:
    server = StoppableServer(tmp_path_factory.mktemp("stoppable") / "postgres")
    yield server
    server.stop()


@pytest.fixture
def server(_stoppable_server: StoppableServer) -> StoppableServer:
    _stoppable_server.start()
    return _stoppable_server
