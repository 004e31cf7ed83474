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
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import httpx

from app.core.errors import AddressRefused, StageFailed, TransientFailure
from app.core.guarded_http import AddressGuard
from app.core.limited_process import make_limited_command
from app.pipeline.downloads import ReportBytes, make_too_large_error
from app.storage import check_free_space

_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 20.0
_IDLE_SECONDS = 60.0  # without a byte, after which a connection is closed
_HOP_BY_HOP = (b"connection:", b"proxy-", b"keep-alive:")
_USER = "videomoments"
_CREDENTIALS_FIELD = b"proxy-authorization"
_log = logging.getLogger(__name__)
# One file with video and audio: joining two takes FFmpeg, which would open any URL that a file names.
_VIDEO_FORMAT = "best[protocol^=http]/best[protocol=m3u8_native]"
_PROGRESS_TEMPLATE = "download:at %(progress.downloaded_bytes)s %(progress.total_bytes)s"
_YT_DLP_OPTIONS = (
    *("--ignore-config", "--no-plugin-dirs", "--no-cache-dir", "--no-remote-components"),
    *("--no-playlist", "--playlist-items", "1", "--match-filters", "!is_live"),
    *("--quiet", "--progress", "--newline", "--progress-template", _PROGRESS_TEMPLATE),
    *("--socket-timeout", "30", "--retries", "3", "--no-mtime"),
    *("--format", _VIDEO_FORMAT, "--output", "video.%(ext)s", "--batch-file", "-"),
)
_URL = re.compile(r"\w+://\S+")  # may hold a password or a signature
_TEXT_BYTES = 4096
# Limits of yt-dlp: a small page may decompress to a thousand times its size.
_MEMORY_BYTES = 2 * 1024**3
_CPU_SECONDS = 300
_FREE_SPACE_STEP = 64 * 1024**2  # for a video of unknown size
_PAGES_BYTES = 64 * 1024**2  # of pages and playlists, beside the video


class _ProxyPasswordWrong(Exception):
    """A request without the password of the guard proxy, or with a wrong one."""


class GuardProxy:
    """A proxy on loopback for CONNECT and plain HTTP, which connects only to addresses that the guard admits.

    It has a random password: other users of the machine, and web pages, can connect to its port as well.
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
        return f"http://{_USER}:{self._password}@127.0.0.1:{self.port}"

    @property
    def is_limit_exceeded(self) -> bool:
        return self._bytes_left < 0

    def accept_connection(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve_client(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve_client(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(_IDLE_SECONDS) as idle:
                await self._forward_request(reader, writer, idle)
        except _ProxyPasswordWrong:
            _send_proxy_error(
                writer, b"407 Proxy Authentication Required", b'Proxy-Authenticate: Basic realm="videomoments"\r\n'
            )
        except AddressRefused:
            self.has_refused = True
            _send_proxy_error(writer, b"403 Forbidden")
        except (StageFailed, TimeoutError, OSError):
            _send_proxy_error(writer, b"502 Bad Gateway")
        except (ValueError, EOFError, httpx.InvalidURL, asyncio.LimitOverrunError):
            _send_proxy_error(writer, b"400 Bad Request")
        finally:
            await _close_writer(writer)

    async def _forward_request(self, reader: StreamReader, writer: StreamWriter, idle: asyncio.Timeout) -> None:
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n").split(b"\r\n")
        self._check_password(fields)
        method, target, version = line.split(b" ")
        if method == b"CONNECT":
            url = httpx.URL(f"https://{target.decode('ascii')}")
            server = await self._connect_to_allowed_address(url, 443)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            url = httpx.URL(target.decode("ascii"))
            server = await self._connect_to_allowed_address(url, 80)
            kept = [field for field in fields if not field.lower().startswith(_HOP_BY_HOP)]
            start = b" ".join((method, url.raw_path, version))
            server[1].write(b"\r\n".join((start, *kept, b"Connection: close", b"", b"")))
        try:
            await asyncio.gather(self._copy_stream(reader, server[1], idle), self._copy_stream(server[0], writer, idle))
        except BaseException:
            writer.transport.abort()  # a truncated response must not look complete
            raise
        finally:
            await _close_writer(server[1])

    def _check_password(self, header_fields: Sequence[bytes]) -> None:
        split = [field.partition(b":") for field in header_fields]
        given = [value.split() for name, _, value in split if name.strip().lower() == _CREDENTIALS_FIELD]
        expected = base64.b64encode(f"{_USER}:{self._password}".encode())
        match given:
            case [[scheme, value]] if scheme.lower() == b"basic" and hmac.compare_digest(value, expected):
                return
            case _:
                raise _ProxyPasswordWrong

    async def _copy_stream(self, reader: StreamReader, writer: StreamWriter, idle: asyncio.Timeout) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            idle.reschedule(asyncio.get_running_loop().time() + _IDLE_SECONDS)
            self._bytes_left -= len(data)
            if self.is_limit_exceeded:
                raise StageFailed("More bytes are requested than the proxy may carry")
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _connect_to_allowed_address(self, url: httpx.URL, default_port: int) -> tuple[StreamReader, StreamWriter]:
        async with asyncio.timeout(_CONNECT_SECONDS):
            port = url.port or default_port
            addresses = await self._guard.resolve_public_addresses(url.raw_host.decode("ascii"), port)
            *others, last = sorted(addresses, key=lambda address: ":" in address)  # IPv4 first
            for address in others:
                with suppress(OSError):
                    return await asyncio.open_connection(address, port)
            return await asyncio.open_connection(last, port)


@asynccontextmanager
async def run_guard_proxy(guard: AddressGuard, max_bytes: int) -> AsyncIterator[GuardProxy]:
    """Run a guard proxy on a free port until the block ends; its connections carry up to `max_bytes` in all."""
    proxy = GuardProxy(guard, max_bytes)
    server = await asyncio.start_server(proxy.accept_connection, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()


def _send_proxy_error(writer: StreamWriter, status: bytes, fields: bytes = b"") -> None:
    if not writer.transport.is_closing():
        writer.write(b"HTTP/1.1 " + status + b"\r\n" + fields + b"Content-Length: 0\r\nConnection: close\r\n\r\n")


async def _close_writer(writer: StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def is_yt_dlp_installed() -> bool:
    return find_spec("yt_dlp") is not None


async def download_from_page(
    url: str, folder: Path, allowed_hosts: Collection[str], max_bytes: int, report: ReportBytes
) -> Path:
    """Download the video of a web page into a folder and return its path; a second call continues the download.

    Raises `StageFailed` and `AddressRefused`: no URL on the page can reach an address that the guard refuses.
    """
    async with run_guard_proxy(AddressGuard(allowed_hosts), max_bytes + _PAGES_BYTES) as proxy:
        process = await _start_yt_dlp(folder, proxy.url)
        try:
            return await _wait_for_yt_dlp(process, url, folder, proxy, max_bytes, report)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _start_yt_dlp(folder: Path, proxy_url: str) -> Process:
    program = [sys.executable, "-I", "-m", "yt_dlp", *_YT_DLP_OPTIONS]
    command = make_limited_command(program, _MEMORY_BYTES, _CPU_SECONDS)
    # An empty PATH: another program would connect past the proxy. The password is in the environment, because every
    # user of the machine can read the command line of a process.
    environment = {"PATH": os.devnull, "HOME": str(folder), "ALL_PROXY": proxy_url}
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=folder, env=environment
    )


async def _wait_for_yt_dlp(
    process: Process, url: str, folder: Path, proxy: GuardProxy, max_bytes: int, report: ReportBytes
) -> Path:
    arguments, output, errors = cast(
        tuple[StreamWriter, StreamReader, StreamReader], (process.stdin, process.stdout, process.stderr)
    )
    arguments.write(f"{url}\n".encode())  # not on the command line, which every user of the machine can read
    arguments.close()
    error_output, _ = await asyncio.gather(
        _read_tail(errors), _check_and_report_progress(output, folder, max_bytes, report)
    )
    if await process.wait() == 0 and (videos := _list_complete_videos(folder)):
        return videos[0]
    if proxy.is_limit_exceeded:
        raise make_too_large_error(max_bytes)
    if proxy.has_refused:
        raise AddressRefused("The web page at the URL leads to an address that is not a public one")
    _log.info("yt-dlp: %s", " ".join(_URL.sub("…", error_output).split()))
    if _was_stopped_by_limit(process, error_output):
        raise StageFailed("The web page at the URL takes more memory or computing time than it may")
    if process.returncode == 0 or "Unsupported URL" in error_output:
        raise StageFailed("The URL leads to a web page in which no video is found that can be downloaded")
    raise TransientFailure("The video that the web page at the URL shows cannot be downloaded")


def _was_stopped_by_limit(process: Process, error_output: str) -> bool:
    return (process.returncode or 0) < 0 or "MemoryError" in error_output or error_output.endswith("ERROR:")


async def _check_and_report_progress(lines: StreamReader, folder: Path, max_bytes: int, report: ReportBytes) -> None:
    checked = 0
    async for received, total in _parse_yt_dlp_progress(lines):
        if max(received, total or 0) > max_bytes:
            raise make_too_large_error(max_bytes)
        if (expected := total or received + _FREE_SPACE_STEP) > checked:
            checked = expected
            await asyncio.to_thread(check_free_space, folder, expected - received, "the video")
        report(received, total)


async def _parse_yt_dlp_progress(lines: StreamReader) -> AsyncIterator[tuple[int, int | None]]:
    try:
        async for line in lines:
            match line.split():
                case [b"at", received, total] if received.isdigit():
                    yield int(received), int(total) if total.isdigit() else None
    except ValueError:  # a line or a number is too long
        raise StageFailed("The video that the web page at the URL shows has no readable progress") from None


async def _read_tail(stream: StreamReader) -> str:
    """Read a stream to its end, and return its last 4096 bytes as text."""
    end = b""
    while data := await stream.read(_TEXT_BYTES):
        end = (end + data)[-_TEXT_BYTES:]
    return end.decode(errors="replace").strip()


def _list_complete_videos(folder: Path) -> list[Path]:
    return [path for path in folder.glob("video.*") if path.suffix not in (".part", ".ytdl")]
