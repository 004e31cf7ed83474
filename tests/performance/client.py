"""The load generator, a process of its own: `Load` as JSON on stdin, `Result` as JSON on stdout.

It counts bytes and looks at no body, so that it takes a small part of the processor time it measures.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, repeat

import orjson
import uvloop

_BUFFER_BYTES = 256 * 1024
_PATIENCE_SECONDS = 30  # for the answers that are under way when the time is over


@dataclass(frozen=True)
class Request:
    path: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    def encode(self) -> bytes:
        headers = {"Host": "127.0.0.1", "Accept-Encoding": "gzip", **self.headers}
        if self.body:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(self.body.encode()))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", self.body]).encode()


@dataclass(frozen=True)
class Load:
    """Requests to send over `connections` for `seconds`: in a circle, or each at most once. Every answer has `status`.

    Answers to a request that is repeated must have the same length every time.
    """

    port: int
    requests: list[Request]
    status: int = 200
    connections: int = 16
    seconds: float = 3.0
    repeated: bool = True


@dataclass(frozen=True)
class Result:
    """What came of a load; times are milliseconds, `client_busy` is the share of a processor that the client took."""

    answers: int
    per_second: float
    p50: float
    p99: float
    client_busy: float


class WrongAnswer(Exception):
    """An answer that is not what the case expects."""


class _Run:
    """The requests that are left, and the answers so far."""

    def __init__(self, load: Load) -> None:
        encoded = enumerate(request.encode() for request in load.requests)
        self.requests: Iterator[tuple[int, bytes]] = (
            chain.from_iterable(repeat(list(encoded))) if load.repeated else encoded
        )
        self.load = load
        self.latencies: list[float] = []
        self.lengths: dict[int, int] = {}
        self.failure: WrongAnswer | None = None
        self.ends_at = 0.0

    def next(self) -> tuple[int, bytes] | None:
        if self.failure is not None or time.perf_counter() >= self.ends_at:
            return None
        return next(self.requests, None)

    def check(self, number: int, status: int, length: int) -> None:
        if status != self.load.status:
            self.failure = WrongAnswer(f"{self.load.requests[number].path} answered {status}")
        elif self.load.repeated and self.lengths.setdefault(number, length) != length:
            self.failure = WrongAnswer(f"{self.load.requests[number].path} answered with another length than before")


class _Connection(asyncio.BufferedProtocol):
    """Sends a request, waits for the whole answer, sends the next one."""

    _buffer = memoryview(bytearray(_BUFFER_BYTES))  # of all connections: what is in it is used at once

    def __init__(self, run: _Run, ended: asyncio.Future[None]) -> None:
        self._run = run
        self._ended = ended
        self._head = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._send()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        if self._missing:
            self._missing -= size
        else:
            self._head += self._buffer[:size]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _content_length(self._head[: end + 2])
            self._run.check(self._number, int(self._head[9:12]), length)
            self._missing = length - (len(self._head) - end - 4)
            self._head = b""
        if self._missing == 0:
            self._run.latencies.append(time.perf_counter() - self._sent_at)
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._run.failure = WrongAnswer("The server closed a connection")
            self._ended.set_result(None)

    def _send(self) -> None:
        following = self._run.next()
        if following is None:
            self._ended.set_result(None)
            self._transport.close()
            return
        self._number, request = following
        self._sent_at = time.perf_counter()
        self._transport.write(request)


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 : head.index(b"\r\n", at + 2)]) if at >= 0 else 0


async def apply(load: Load) -> Result:
    """Send the requests. Raises `WrongAnswer`."""
    run = _Run(load)
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in range(load.connections)]
    busy, started = time.process_time(), time.perf_counter()
    run.ends_at = started + load.seconds
    for ended in ends:
        await loop.create_connection(lambda ended=ended: _Connection(run, ended), "127.0.0.1", load.port)
    async with asyncio.timeout(load.seconds + _PATIENCE_SECONDS):
        await asyncio.gather(*ends)
    elapsed = time.perf_counter() - started
    if run.failure is not None:
        raise run.failure
    return _summarize(run.latencies, elapsed, time.process_time() - busy)


def _summarize(latencies: list[float], elapsed: float, busy: float) -> Result:
    if not latencies:
        raise WrongAnswer("There was no answer in time")
    latencies.sort()
    at = len(latencies) / 100
    return Result(
        answers=len(latencies),
        per_second=len(latencies) / elapsed,
        p50=latencies[int(50 * at)] * 1000,
        p99=latencies[int(99 * at)] * 1000,
        client_busy=busy / elapsed,
    )


def main() -> None:
    load = orjson.loads(sys.stdin.buffer.read())
    load["requests"] = [Request(**request) for request in load["requests"]]
    try:
        result = uvloop.run(apply(Load(**load)))
    except WrongAnswer as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(orjson.dumps(asdict(result)))


if __name__ == "__main__":
    main()
