"""The three servers under measurement, each a uvicorn process of one worker."""

import gzip
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

ROOT = Path(__file__).resolve().parents[2]
PEERS_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
_READY_SECONDS = 30.0
_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Stack:
    """How one of the servers is written, and where."""

    name: str
    application: str
    python: Path
    http: str = "httptools"


OURS = Stack("this project", "app.main:app", Path(sys.executable), "app.api.http_protocol:LimitedProtocol")
ORM = Stack("ORM", "tests.performance.peer_orm:app", PEERS_PYTHON)
RAW = Stack("raw asyncpg", "tests.performance.peer_raw:app", PEERS_PYTHON)
STACKS = (OURS, ORM, RAW)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        return orjson.loads(self.body)


class Server:
    """A running server; `restart()` gives a process that remembers nothing."""

    def __init__(self, stack: Stack, environment: Mapping[str, str]) -> None:
        self.stack = stack
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def restart(self) -> None:
        self._stop()
        self._start()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self._request("GET", path, headers or {})

    def post(self, path: str) -> Answer:
        return self._request("POST", path, {})

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers={"Accept-Encoding": "gzip", **headers})
            response = connection.getresponse()
            body = response.read()
            if response.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            return Answer(response.status, response.headers, body)
        finally:
            connection.close()

    def _start(self) -> None:
        self.port = free_port()
        options = ["--port", str(self.port), "--loop", "uvloop", "--http", self.stack.http]
        quiet = ["--no-access-log", "--log-level", "warning"]
        self._process = subprocess.Popen(
            [self.stack.python, "-m", "uvicorn", self.stack.application, *options, *quiet],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self.get("/api/videos/nobody")
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"The server of {self.stack.name} did not start") from None
                time.sleep(0.05)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
