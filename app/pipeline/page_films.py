"""Films that web pages show: yt-dlp finds and downloads them, where it is installed."""

import asyncio
import logging
import os
import re
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from app.core.errors import AddressRefused, StageFailed, TransientFailure
from app.core.guarded_http import AddressGuard
from app.core.limited_process import limited_command
from app.pipeline.guard_proxy import GuardProxy, guard_proxy
from app.storage import check_free_space

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
