"""Downloads over HTTP and out of buckets, which continue where they broke off."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import httpx
from tenacity import wait_fixed

from app.core.errors import FileMissing, StageFailed, StorageUnavailable, TransientFailure
from app.core.guarded_http import open_guarded_client, raise_for_error_status
from app.core.retrying import RetryPolicy, call_with_retries
from app.core.thread_pool import ThreadPool
from app.storage import Storage, check_free_space
from app.storage.file_system import translate_write_errors

_log = logging.getLogger(__name__)

_BUFFER_BYTES = 1024 * 1024  # written by a thread at a time
_TIMEOUT_SECONDS = 60.0  # for a connection, and between two of its bytes
_WAIT_SECONDS = 1.0  # before another connection
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_SNIFFED_BYTES = 4096
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)")
_disk = ThreadPool("downloads", 4)


@dataclass(frozen=True, slots=True)
class DownloadSource:
    """The file that a download reads. Another connection continues where the source is the same and has a version."""

    url: str
    version: str = ""
    total_bytes: int | None = None


class PartialDownload:
    """The first `size` bytes of a file, with the source stored beside it, so that a retry continues the download."""

    def __init__(self, path: Path, max_bytes: int, report: Callable[[int, int | None], None]) -> None:
        self.path = path
        self.source = DownloadSource("")
        self.size = 0
        self._source_path = path.with_name(f"{path.name}.json")
        self._max_bytes = max_bytes
        self._report = report
        self._buffer = bytearray()

    @property
    def received_bytes(self) -> int:
        return self.size + len(self._buffer)

    @property
    def is_complete(self) -> bool:
        return self.source.total_bytes == self.size

    async def resume(self, url: str) -> None:
        """Continue with the bytes that an earlier attempt downloaded from this URL."""
        await _disk.run_shielded(partial(self._resume, url))

    async def restart(self, source: DownloadSource) -> None:
        self._check_size(source.total_bytes or 0)
        self.source, self.size = source, 0
        self._buffer.clear()
        await _disk.run_shielded(self._restart)

    async def write(self, data: bytes) -> None:
        """Append received bytes. Raises `StageFailed` where the file gets too large, and `StorageFull`."""
        self._check_size(self.received_bytes + len(data))
        self._buffer += data
        self._report(self.received_bytes, self.source.total_bytes)
        if len(self._buffer) >= _BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        if self._buffer:
            await _disk.run_shielded(self._flush)

    async def delete(self) -> None:
        self.source, self.size = DownloadSource(""), 0
        self._buffer.clear()
        await _disk.run_shielded(self._delete)

    def _resume(self, url: str) -> None:
        with suppress(OSError, ValueError, TypeError):
            source, size = DownloadSource(**json.loads(self._source_path.read_text("utf-8"))), self.path.stat().st_size
            if source.url == _hash_url(url) and source.version:
                self.source, self.size = replace(source, url=url), size

    def _restart(self) -> None:
        with translate_write_errors():
            self.path.write_bytes(b"")  # frees the space of an earlier attempt
            check_free_space(self.path.parent, self.source.total_bytes or 0, "the video")
            stored = asdict(self.source) | {"url": _hash_url(self.source.url)}
            self._source_path.write_text(json.dumps(stored), "utf-8")

    def _flush(self) -> None:
        with translate_write_errors(), self.path.open("r+b") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(self._buffer)
        self.size += len(self._buffer)
        self._buffer.clear()

    def _delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self._source_path.unlink(missing_ok=True)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise StageFailed(f"A video may have at most {self._max_bytes} bytes, and the one at the URL has more")


def _hash_url(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()  # the URL itself may be signed, and is not stored


class WebPageFound(StageFailed):
    """The URL leads to an HTML page and not to a file."""

    def __init__(self) -> None:
        super().__init__("The URL leads to a web page, and yt-dlp, which finds the videos of pages, is not installed")


async def download_from_bucket(storage: Storage, url: str, part: PartialDownload) -> None:
    try:
        async with storage.open_async(url) as file:
            source = DownloadSource(url, file.stored.version, file.stored.size)
            if part.source != source:
                await part.restart(source)
            async for chunk in file.read(part.size):
                await part.write(chunk)
            await part.flush()
    except FileMissing:
        raise StageFailed("There is no file at the gs:// URL") from None
    except StorageUnavailable as error:
        raise TransientFailure(str(error)) from None
    if not part.is_complete:
        raise TransientFailure("The file in the bucket was replaced while it was read")


async def download_over_http(url: str, part: PartialDownload, allowed_hosts: Collection[str]) -> None:
    """Download a URL with as many connections as it takes, as long as each of them brings bytes.

    Raises `StageFailed`, `WebPageFound` and `AddressRefused`.
    """
    begun_at = part.size

    async def continue_download() -> None:
        nonlocal begun_at
        begun_at = part.size
        try:
            if not part.is_complete:
                await _download_rest(url, part, allowed_hosts)
        except TransientFailure:
            await part.flush()
            raise

    await call_with_retries(
        continue_download,
        RetryPolicy(
            lambda error: isinstance(error, TransientFailure) and part.size > begun_at, wait_fixed(_WAIT_SECONDS)
        ),
        before_wait=lambda failed: _log.info("A download continues after %s bytes: %s", part.size, failed.error),
    )


async def _download_rest(url: str, part: PartialDownload, allowed_hosts: Collection[str]) -> None:
    # A compressed response could not be continued in its middle.
    headers = {"Accept-Encoding": "identity", **_make_range_headers(part)}
    async with (
        open_guarded_client(allowed_hosts, _TIMEOUT_SECONDS) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if part.size and response.status_code in (206, 416) and not _is_continuation(response, part):
            await part.delete()
            raise TransientFailure("The video at the URL has changed while it was downloaded")
        raise_for_error_status(response)
        _check_content_headers(response)
        if response.status_code != 206 or not part.size:
            await part.restart(_source_of_response(url, response))
        async for chunk in response.aiter_raw():
            if not part.received_bytes and _is_html(chunk[:_SNIFFED_BYTES]):
                raise WebPageFound
            await part.write(chunk)
        await part.flush()


def _is_html(start: bytes) -> bool:
    rest = start.lstrip()
    while rest.startswith(b"<!--"):
        rest = rest.partition(b"-->")[2].lstrip()
    return _HTML.match(rest) is not None


def _make_range_headers(part: PartialDownload) -> dict[str, str]:
    return {"Range": f"bytes={part.size}-", "If-Range": part.source.version} if part.size else {}


def _is_continuation(response: httpx.Response, part: PartialDownload) -> bool:
    """Return whether a partial response belongs to the file already begun: some servers ignore `If-Range`."""
    span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or span is None or int(span[1]) != part.size:
        return False
    total = part.source.total_bytes
    return _version_of_response(response) in ("", part.source.version) and (
        total is None or span[2] in ("*", str(total))
    )


def _check_content_headers(response: httpx.Response) -> None:
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() in _HTML_TYPES:
        raise WebPageFound
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise StageFailed("The server of the URL sends the video compressed although it was asked not to")


def _source_of_response(url: str, response: httpx.Response) -> DownloadSource:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isascii() and length.isdigit() else None
    return DownloadSource(url, _version_of_response(response), total)


def _version_of_response(response: httpx.Response) -> str:
    """Return a validator for `If-Range` (RFC 9110, 13.1.5): a strong ETag, or a date."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(response.headers.get("Last-Modified", ""))
