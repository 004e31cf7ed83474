"""A proxy on loopback, for programs that connect by themselves: it leads only to hosts that the guard admits."""

import asyncio
import base64
import hmac
import secrets
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import httpx

from app.core.errors import AddressRefused, StageFailed
from app.core.guarded_http import AddressGuard

_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 20.0
_IDLE_SECONDS = 60.0  # until a connection is given up on which no byte comes
_HOP_BY_HOP = (b"connection:", b"proxy-", b"keep-alive:")
_USER = "videomoments"
_CREDENTIALS_FIELD = b"proxy-authorization"


class _CredentialsMissing(Exception):
    """A request without the password of the proxy."""


class GuardProxy:
    """Speaks CONNECT, and HTTP with whole URLs; each request connects to an address that was looked at.

    Every proxy has a random password: other users of the machine, and web pages, can connect to its port as well.
    """

    def __init__(self, guard: AddressGuard, max_bytes: int) -> None:
        self.port = 0
        self.has_refused = False
        self._guard = guard
        self._bytes_left = max_bytes
        self._password = secrets.token_urlsafe(32)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The address with the password, which belongs in no log and on no command line."""
        return f"http://{_USER}:{self._password}@127.0.0.1:{self.port}"

    @property
    def is_used_up(self) -> bool:
        """Whether more has been asked for than may pass in all."""
        return self._bytes_left < 0

    def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(_IDLE_SECONDS) as idle:
                await self._forward(reader, writer, idle)
        except _CredentialsMissing:
            _refuse(writer, b"407 Proxy Authentication Required", b'Proxy-Authenticate: Basic realm="videomoments"\r\n')
        except AddressRefused:
            self.has_refused = True
            _refuse(writer, b"403 Forbidden")
        except (StageFailed, TimeoutError, OSError):
            _refuse(writer, b"502 Bad Gateway")
        except (ValueError, EOFError, httpx.InvalidURL, asyncio.LimitOverrunError):
            _refuse(writer, b"400 Bad Request")
        finally:
            await _close(writer)

    async def _forward(self, reader: StreamReader, writer: StreamWriter, idle: asyncio.Timeout) -> None:
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n").split(b"\r\n")
        self._check_credentials(fields)
        method, target, version = line.split(b" ")
        if method == b"CONNECT":
            url = httpx.URL(f"https://{target.decode('ascii')}")
            server = await self._connect(url, 443)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            url = httpx.URL(target.decode("ascii"))
            server = await self._connect(url, 80)
            kept = [field for field in fields if not field.lower().startswith(_HOP_BY_HOP)]
            start = b" ".join((method, url.raw_path, version))
            server[1].write(b"\r\n".join((start, *kept, b"Connection: close", b"", b"")))
        try:
            await asyncio.gather(self._pump(reader, server[1], idle), self._pump(server[0], writer, idle))
        except BaseException:
            writer.transport.abort()  # what has come so far shall not look whole
            raise
        finally:
            await _close(server[1])

    def _check_credentials(self, fields: Sequence[bytes]) -> None:
        """Raise `_CredentialsMissing` unless the header has the password once (RFC 7617)."""
        split = [field.partition(b":") for field in fields]
        given = [value.split() for name, _, value in split if name.strip().lower() == _CREDENTIALS_FIELD]
        expected = base64.b64encode(f"{_USER}:{self._password}".encode())
        match given:
            case [[scheme, value]] if scheme.lower() == b"basic" and hmac.compare_digest(value, expected):
                return
            case _:
                raise _CredentialsMissing

    async def _pump(self, reader: StreamReader, writer: StreamWriter, idle: asyncio.Timeout) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            idle.reschedule(asyncio.get_running_loop().time() + _IDLE_SECONDS)
            self._bytes_left -= len(data)
            if self.is_used_up:
                raise StageFailed("More is asked for than may pass in all")
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _connect(self, url: httpx.URL, default_port: int) -> tuple[StreamReader, StreamWriter]:
        async with asyncio.timeout(_CONNECT_SECONDS):
            port = url.port or default_port
            addresses = await self._guard.resolve(url.raw_host.decode("ascii"), port)
            *others, last = sorted(addresses, key=lambda address: ":" in address)  # IPv4 first
            for address in others:
                with suppress(OSError):
                    return await asyncio.open_connection(address, port)
            return await asyncio.open_connection(last, port)


@asynccontextmanager
async def guard_proxy(guard: AddressGuard, max_bytes: int) -> AsyncIterator[GuardProxy]:
    """Run a proxy until the block ends; all its connections together carry no more than `max_bytes`."""
    proxy = GuardProxy(guard, max_bytes)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()


def _refuse(writer: StreamWriter, status: bytes, fields: bytes = b"") -> None:
    if not writer.transport.is_closing():
        writer.write(b"HTTP/1.1 " + status + b"\r\n" + fields + b"Content-Length: 0\r\nConnection: close\r\n\r\n")


async def _close(writer: StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
