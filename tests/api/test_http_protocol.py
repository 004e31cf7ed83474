"""What a connection may cost before the application sees its request."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.api import http_protocol
from app.api.http_protocol import HEAD_BYTES, LimitedProtocol

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = 60_000


class Application:
    """Reads the whole body and answers with its length and the names of the headers."""

    def __init__(self) -> None:
        self.requests = 0
        self.aborted = 0
        self.hosts: list[bytes] = []  # of the last request
        self.seconds_before_reading = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        self.hosts = [value for name, value in scope["headers"] if name == b"host"]
        await asyncio.sleep(self.seconds_before_reading)
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.aborted += 1
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        names = b",".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d %s" % (size, names)})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def flood(self, piece: bytes, times: int = 2000) -> int:
        """Send until the server ends the connection; return the number of pieces."""
        for sent in range(times):
            try:
                await self.send(piece)
            except ConnectionError:
                return sent
        return times

    async def read_rest(self) -> bytes:
        """Return what comes until the server closes the connection."""
        with suppress(ConnectionError):
            return await asyncio.wait_for(self._reader.read(-1), 60)
        return b""

    async def read_answer(self) -> bytes:
        """Return one answer in chunks, whose connection stays open."""
        return await asyncio.wait_for(self._reader.readuntil(b"0\r\n\r\n"), 60)


class Server:
    def __init__(self, port: int, application: Application) -> None:
        self.application = application
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, first: bytes = b"") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        client = Client(reader, writer)
        await client.send(first)
        return client

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    application = Application()
    config = uvicorn.Config(application, http=LimitedProtocol, lifespan="off", log_config=None, **options)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server._serve([listener]))
        ours = Server(listener.getsockname()[1], application)
        try:
            yield ours
        finally:
            ours.close()
            server.should_exit = True
            await task


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def impatient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.3)
    async with serving() as server:
        yield server


async def test_requests_on_one_connection_are_answered(server: Server) -> None:
    client = await server.connect(GET + b"X: " + b"a" * PIECE + b"\r\n\r\n")
    assert (await client.read_answer()).startswith(b"HTTP/1.1 200")
    await client.send(CHUNKED + b"3\r\nabc\r\n")
    await client.send(b"2;x=y\r\nde\r\n0\r\n\r\n")
    assert b"5 host,transfer-encoding" in await client.read_answer()
    await client.send(GET + b"\r\n" + GET + b"\r\n")
    assert (await client.read_answer()).startswith(b"HTTP/1.1 200")
    assert (await client.read_answer()).startswith(b"HTTP/1.1 200")
    assert server.application.requests == 4


@pytest.mark.parametrize(
    ("first", "piece", "status"),
    [
        pytest.param(GET + b"X: ", b"a" * PIECE, 431, id="one header"),
        pytest.param(GET + b"X: ", b"a" * 1000, 431, id="one header in small pieces"),
        pytest.param(GET, b"X: a\r\n" * 10_000, 431, id="many headers"),
        pytest.param(GET, b"a" * PIECE, 431, id="the name of a header"),
        pytest.param(b"GET /", b"a" * PIECE, 414, id="path"),
        pytest.param(b"GET /?", b"a=1&" * 15_000, 414, id="query"),
        pytest.param(CHUNKED + b"1;", b"a" * PIECE, 431, id="extension of a chunk"),
        pytest.param(CHUNKED + b"1\r\na\r\n0\r\n", b"X: a\r\n" * 10_000, 431, id="many trailers"),
        pytest.param(CHUNKED + b"0\r\nX: ", b"a" * PIECE, 431, id="one trailer"),
        pytest.param(GET + b"\r\n" + GET + b"X: ", b"a" * PIECE, None, id="second of two requests"),
    ],
)
async def test_what_is_no_body_ends_the_connection_above_64_kb(
    server: Server, first: bytes, piece: bytes, status: int | None
) -> None:
    client = await server.connect(first)
    sent = await client.flood(piece)
    assert sent * len(piece) < 30_000_000  # what the sockets of both sides hold, and no more
    answer = await client.read_rest()
    if status and answer:  # a client that goes on sending may not see it
        assert answer.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(GET + b"X: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431, id="one header"),
        pytest.param(GET + b"X: a\r\n" * (HEAD_BYTES // 6) + b"\r\n", 431, id="many headers"),
        pytest.param(b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, id="address"),
        pytest.param(b"G@T / HTTP/1.1\r\n\r\n", 400, id="no HTTP"),
        pytest.param(POST + b"Content-Length: x\r\n\r\n", 400, id="no length"),
        pytest.param(CHUNKED + b"zz\r\n", 400, id="no chunk"),
        pytest.param(POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="two lengths"),
    ],
)
async def test_a_complete_request_is_refused_with_the_reason(server: Server, request_: bytes, status: int) -> None:
    answer = await (await server.connect(request_)).read_rest()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b'{"detail":"' in answer
    assert b"connection: close" in answer.lower()


async def test_trailers_become_no_headers(server: Server) -> None:
    client = await server.connect(CHUNKED + b"1\r\na\r\n0\r\nAuthorization: x\r\n\r\n")
    assert b"1 host,transfer-encoding\r\n" in await client.read_answer()


@pytest.mark.parametrize("first", [b"", b"\r\n", b"GET", GET])
async def test_headers_that_are_not_complete_end_the_connection_in_time(impatient: Server, first: bytes) -> None:
    answer = await (await impatient.connect(first)).read_rest()
    assert answer.startswith(b"HTTP/1.1 408 ") if len(first) > 2 else answer == b""
    assert impatient.application.requests == 0


async def test_headers_that_drip_end_the_connection_in_time(impatient: Server) -> None:
    client = await impatient.connect(GET)
    answer = asyncio.create_task(client.read_rest())
    with suppress(ConnectionError):
        while not answer.done():
            await client.send(b"X: a\r\n")
            await asyncio.sleep(0.05)
    assert (await answer).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("first", [b"\r\n", GET])
async def test_a_second_request_has_the_same_time(impatient: Server, first: bytes) -> None:
    client = await impatient.connect(GET + b"\r\n")
    await client.read_answer()
    await client.send(first)
    assert (await client.read_rest()).startswith(b"HTTP/1.1 408 " if first == GET else b"")


async def test_a_body_of_which_nothing_comes_ends_the_request(impatient: Server) -> None:
    client = await impatient.connect(POST + b"Content-Length: 10\r\n\r\nabc")
    assert (await client.read_rest()).startswith(b"HTTP/1.1 408 ")
    async with asyncio.timeout(60):
        while not impatient.application.aborted:  # noqa: ASYNC110  no event is set
            await asyncio.sleep(0.01)
    assert impatient.application.aborted == 1


async def test_a_body_that_is_slow_but_steady_is_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 2.0)
    client = await server.connect(POST + b"Content-Length: 12\r\n\r\n")
    for _ in range(12):
        await asyncio.sleep(0.2)
        await client.send(b"a")
    assert b"12 host,content-length" in await client.read_answer()


async def test_a_server_that_reads_late_is_no_idle_client(impatient: Server) -> None:
    impatient.application.seconds_before_reading = 1
    size = 1_000_000
    client = await impatient.connect(POST + b"Content-Length: %d\r\n\r\n" % size)
    sending = asyncio.create_task(client.send(b"a" * size))
    assert b"%d host" % size in await client.read_answer()
    await sending
    client = await impatient.connect(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    await asyncio.sleep(1.1)
    await client.send(b"ab")
    assert b"2 host" in await client.read_answer()


async def test_an_answer_that_takes_long_is_waited_for(impatient: Server) -> None:
    impatient.application.seconds_before_reading = 1
    client = await impatient.connect(GET + b"\r\n")
    assert (await client.read_answer()).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_above_the_limit_gets_503_until_one_is_free() -> None:
    async with serving(limit_concurrency=2) as server:
        first, _ = await server.connect(GET + b"\r\n"), await server.connect()
        await first.read_answer()
        answer = await (await server.connect(GET + b"\r\n")).read_rest()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5\r\n" in answer.lower()
        await first.send(GET + b"Connection: close\r\n\r\n")
        await first.read_rest()
        async with asyncio.timeout(60):
            while not answer.startswith(b"HTTP/1.1 200 "):
                answer = await (await server.connect(GET + b"Connection: close\r\n\r\n")).read_rest()


async def test_an_upgrade_is_answered_as_if_it_were_none(server: Server) -> None:
    client = await server.connect(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (await client.read_answer()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://evil.example:81/x?y", b"evil.example:81"),
        (b"HTTP://evil.example?y", b"evil.example"),
        (b"http://evil.example", b"evil.example"),
        (b"http://localhost@evil.example/", b"localhost@evil.example"),
        (b"//evil.example/x", b"a"),
        (b"/x?http://evil.example/", b"a"),
    ],
)
async def test_the_host_of_an_absolute_target_counts(server: Server, target: bytes, host: bytes) -> None:
    client = await server.connect(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.read_answer()
    assert server.application.hosts == [host]


async def test_no_page_may_show_a_refusal(server: Server) -> None:
    answer = await (await server.connect(b"no HTTP\r\n\r\n")).read_rest()
    assert b"x-content-type-options: nosniff" in answer
    assert b"frame-ancestors 'none'" in answer
    assert b"cross-origin-resource-policy: same-origin" in answer
