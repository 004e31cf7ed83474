"""Downloads over HTTP and from buckets, which continue at the bytes already received."""

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
ReportBytes = Callable[[int, int | None], None]  # with the received and the total bytes
_disk = ThreadPool("downloads", 4)


@dataclass(frozen=True, slots=True)
class DownloadSource:
    """The file behind a URL; a download continues where its version, an ETag or a date, is still the same."""

    url: str
    version: str = ""
    total_bytes: int | None = None


class PartialDownload:
    """The first `size` bytes of a download in a file, with its source stored beside it, so that a retry continues.

    `report` gets the received and the total bytes.
    """

    def __init__(self, path: Path, max_bytes: int, report: ReportBytes) -> None:
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

    async def load_earlier_bytes(self, url: str) -> None:
        """Set source and size to what an earlier attempt downloaded from this URL, if anything."""
        await _disk.run_shielded(partial(self._load_stored_source, url))

    async def restart(self, source: DownloadSource) -> None:
        """Drop all bytes, and store the source. Raises `StorageFull`, and `StageFailed` for a source too large."""
        self._check_max_bytes(source.total_bytes or 0)
        self.source, self.size = source, 0
        self._buffer.clear()
        await _disk.run_shielded(self._write_empty_file)

    async def append(self, data: bytes) -> None:
        self._check_max_bytes(self.received_bytes + len(data))
        self._buffer += data
        self._report(self.received_bytes, self.source.total_bytes)
        if len(self._buffer) >= _BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        if self._buffer:
            await _disk.run_shielded(self._write_buffer)

    async def delete_files(self) -> None:
        self.source, self.size = DownloadSource(""), 0
        self._buffer.clear()
        for path in (self.path, self._source_path):
            await _disk.run_shielded(partial(path.unlink, missing_ok=True))

    def _load_stored_source(self, url: str) -> None:
        with suppress(OSError, ValueError, TypeError):
            source, size = DownloadSource(**json.loads(self._source_path.read_text("utf-8"))), self.path.stat().st_size
            if source.url == _hash_url(url) and source.version:
                self.source, self.size = replace(source, url=url), size

    def _write_empty_file(self) -> None:
        with translate_write_errors():
            self.path.write_bytes(b"")  # frees the space of an earlier attempt
            check_free_space(self.path.parent, self.source.total_bytes or 0, "the video")
            stored = asdict(self.source) | {"url": _hash_url(self.source.url)}
            self._source_path.write_text(json.dumps(stored), "utf-8")

    def _write_buffer(self) -> None:
        with translate_write_errors(), self.path.open("r+b") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(self._buffer)
        self.size += len(self._buffer)
        self._buffer.clear()

    def _check_max_bytes(self, size: int) -> None:
        if size > self._max_bytes:
            raise make_too_large_error(self._max_bytes)


def make_too_large_error(max_bytes: int) -> StageFailed:
    return StageFailed(f"A video may have at most {max_bytes} bytes, and the one at the URL has more")


def _hash_url(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()  # the URL itself may be signed, and is not stored


class WebPageFound(StageFailed):
    """The URL leads to an HTML page and not to a file."""

    def __init__(self) -> None:
        super().__init__("The URL leads to a web page, and yt-dlp, which finds the videos of pages, is not installed")


async def download_from_bucket(storage: Storage, url: str, download: PartialDownload) -> None:
    try:
        async with storage.open_async(url) as file:
            source = DownloadSource(url, file.stored.version, file.stored.size)
            if download.source != source:
                await download.restart(source)
            async for chunk in file.read(download.size):
                await download.append(chunk)
            await download.flush()
    except FileMissing:
        raise StageFailed("There is no file at the gs:// URL") from None
    except StorageUnavailable as error:
        raise TransientFailure(str(error)) from None
    if not download.is_complete:
        raise TransientFailure("The file in the bucket was replaced while it was read")


async def download_over_http(url: str, download: PartialDownload, allowed_hosts: Collection[str]) -> None:
    """Download the rest of a URL, with a new connection after each failure, as long as each one brings bytes.

    Raises `StageFailed`, `WebPageFound` and `AddressRefused`.
    """
    begun_at = download.size

    async def continue_download() -> None:
        nonlocal begun_at
        begun_at = download.size
        try:
            if not download.is_complete:
                await _download_rest(url, download, allowed_hosts)
        except TransientFailure:
            await download.flush()
            raise

    await call_with_retries(
        continue_download,
        RetryPolicy(
            lambda error: isinstance(error, TransientFailure) and download.size > begun_at,
            wait_fixed(_WAIT_SECONDS),
        ),
        before_wait=lambda failed: _log.info("A download continues after %s bytes: %s", download.size, failed.error),
    )


async def _download_rest(url: str, download: PartialDownload, allowed_hosts: Collection[str]) -> None:
    # A compressed response could not be continued in its middle.
    headers = {"Accept-Encoding": "identity", **_make_range_headers(download)}
    async with (
        open_guarded_client(allowed_hosts, _TIMEOUT_SECONDS) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if download.size and response.status_code in (206, 416) and not _continues_download(response, download):
            await download.delete_files()
            raise TransientFailure("The video at the URL has changed while it was downloaded")
        raise_for_error_status(response)
        _refuse_html_and_compression(response)
        if response.status_code != 206 or not download.size:
            await download.restart(_make_source_from_response(url, response))
        async for chunk in response.aiter_raw():
            if not download.received_bytes and _starts_like_html(chunk[:_SNIFFED_BYTES]):
                raise WebPageFound
            await download.append(chunk)
        await download.flush()


def _starts_like_html(content: bytes) -> bool:
    rest = content.lstrip()
    while rest.startswith(b"<!--"):
        rest = rest.partition(b"-->")[2].lstrip()
    return _HTML.match(rest) is not None


def _make_range_headers(download: PartialDownload) -> dict[str, str]:
    return {"Range": f"bytes={download.size}-", "If-Range": download.source.version} if download.size else {}


def _continues_download(response: httpx.Response, download: PartialDownload) -> bool:
    """Return whether a response of 206 has the next bytes of the same file: some servers ignore `If-Range`."""
    span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or span is None or int(span[1]) != download.size:
        return False
    total = download.source.total_bytes
    return _read_version_of_response(response) in ("", download.source.version) and (
        total is None or span[2] in ("*", str(total))
    )


def _refuse_html_and_compression(response: httpx.Response) -> None:
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() in _HTML_TYPES:
        raise WebPageFound
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise StageFailed("The server of the URL sends the video compressed although it was asked not to")


def _make_source_from_response(url: str, response: httpx.Response) -> DownloadSource:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isascii() and length.isdigit() else None
    return DownloadSource(url, _read_version_of_response(response), total)


def _read_version_of_response(response: httpx.Response) -> str:
    """Return a validator for `If-Range` (RFC 9110, 13.1.5): a strong ETag or a date, if any."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(response.headers.get("Last-Modified", ""))
