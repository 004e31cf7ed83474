"""Videos of web pages, which yt-dlp finds and downloads through a proxy that admits only public hosts."""

import asyncio
import base64
import hmac
import logging
import os
import re
import secrets
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import httpx

from app.core.errors import AddressRefused, StageFailed, TransientFailure
from app.core.guarded_http import AddressGuard
from app.core.limited_process import limited_command
from app.storage import check_free_space

_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 20.0
_IDLE_SECONDS = 60.0  # until a connection is given up on which no byte comes
_HOP_BY_HOP = (b"connection:", b"proxy-", b"keep-alive:")
_USER = "videomoments"
_CREDENTIALS_FIELD = b"proxy-authorization"
_log = logging.getLogger(__name__)
Report = Callable[[int, int | None], None]
# One file that holds picture and sound: to join two takes FFmpeg, and that opens what a file names.
_FORMAT = "best[protocol^=http]/best[protocol=m3u8_native]"
_PROGRESS = "download:at %(progress.downloaded_bytes)s %(progress.total_bytes)s"
_OPTIONS = (
    *("--ignore-config", "--no-plugin-dirs", "--no-cache-dir", "--no-remote-components"),
    *("--no-playlist", "--playlist-items", "1", "--match-filters", "!is_live"),
    *("--quiet", "--progress", "--newline", "--progress-template", _PROGRESS),
    *("--socket-timeout", "30", "--retries", "3", "--no-mtime"),
    *("--format", _FORMAT, "--output", "film.%(ext)s", "--batch-file", "-"),
)
_ADDRESS = re.compile(r"\w+://\S+")  # may hold a password or a signature
_TEXT_BYTES = 4096
# What a page can make yt-dlp use; a small one may unpack to a thousand times its size.
_MEMORY_BYTES = 2 * 1024**3
_CPU_SECONDS = 300
_FREE_SPACE_STEP = 64 * 1024**2  # of a video whose length is not known
_PAGES_BYTES = 64 * 1024**2  # of pages and lists, beside the film


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


def can_fetch_from_pages() -> bool:
    return find_spec("yt_dlp") is not None


async def fetch_from_page(
    url: str, folder: Path, allowed_hosts: Collection[str], max_bytes: int, report: Report
) -> Path:
    """Download the film of a page into a folder and return its file, which a second call goes on with.

    Raises `StageFailed` and `AddressRefused`. Whatever a page names, only what the guard admits is connected to.
    """
    async with guard_proxy(AddressGuard(allowed_hosts), max_bytes + _PAGES_BYTES) as proxy:
        process = await _start(folder, proxy.url)
        try:
            return await _download(process, url, folder, proxy, max_bytes, report)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _start(folder: Path, proxy_url: str) -> Process:
    program = [sys.executable, "-I", "-m", "yt_dlp", *_OPTIONS]
    command = limited_command(program, _MEMORY_BYTES, _CPU_SECONDS)
    # It finds no other program, which would connect past the proxy. Every user of the machine can read the command
    # line of a process, and its owner alone the environment, which has the password of the proxy.
    environment = {"PATH": os.devnull, "HOME": str(folder), "ALL_PROXY": proxy_url}
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=folder, env=environment
    )


async def _download(
    process: Process, url: str, folder: Path, proxy: GuardProxy, max_bytes: int, report: Report
) -> Path:
    arguments, output, errors = cast(
        tuple[StreamWriter, StreamReader, StreamReader], (process.stdin, process.stdout, process.stderr)
    )
    arguments.write(f"{url}\n".encode())  # on the command line, everybody on this machine could read it
    arguments.close()
    said, _ = await asyncio.gather(_read_end(errors), _follow(output, folder, max_bytes, report))
    if await process.wait() == 0 and (films := _list_films(folder)):
        return films[0]
    if proxy.is_used_up:
        raise _too_large(max_bytes)
    if proxy.has_refused:
        raise AddressRefused("The web page at the URL leads to an address that is not a public one")
    _log.info("yt-dlp: %s", " ".join(_ADDRESS.sub("…", said).split()))
    if _hit_limit(process, said):
        raise StageFailed("The web page at the URL takes more memory or computing time than it may")
    if process.returncode == 0 or "Unsupported URL" in said:
        raise StageFailed("The URL leads to a web page in which no video is found that can be downloaded")
    raise TransientFailure("The video that the web page at the URL shows cannot be downloaded")


def _hit_limit(process: Process, said: str) -> bool:
    """Whether yt-dlp was killed, or ran out of memory, of which it says only that it is an error."""
    return (process.returncode or 0) < 0 or "MemoryError" in said or said.endswith("ERROR:")


async def _follow(lines: StreamReader, folder: Path, max_bytes: int, report: Report) -> None:
    checked = 0
    async for arrived, total in _read_progress(lines):
        if max(arrived, total or 0) > max_bytes:
            raise _too_large(max_bytes)
        if (expected := total or arrived + _FREE_SPACE_STEP) > checked:
            checked = expected
            await asyncio.to_thread(check_free_space, folder, expected - arrived, "the video")
        report(arrived, total)


async def _read_progress(lines: StreamReader) -> AsyncIterator[tuple[int, int | None]]:
    try:
        async for line in lines:
            match line.split():
                case [b"at", arrived, total] if arrived.isdigit():
                    yield int(arrived), int(total) if total.isdigit() else None
    except ValueError:  # a line or a number is too long
        raise StageFailed("The video that the web page at the URL shows cannot be followed as it arrives") from None


def _too_large(max_bytes: int) -> StageFailed:
    return StageFailed(f"A video may have at most {max_bytes} bytes, and the one at the URL has more")


async def _read_end(stream: StreamReader) -> str:
    """Read all and return the end."""
    end = b""
    while data := await stream.read(_TEXT_BYTES):
        end = (end + data)[-_TEXT_BYTES:]
    return end.decode(errors="replace").strip()


def _list_films(folder: Path) -> list[Path]:
    return [path for path in folder.glob("film.*") if path.suffix not in (".part", ".ytdl")]
