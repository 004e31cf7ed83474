"""Downloads over HTTP and out of buckets, which continue where they broke off."""

import asyncio
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

from app.core.errors import FileMissing, StageFailed, StorageUnavailable, TransientFailure
from app.core.guarded_http import check_status, guarded_client
from app.storage import Storage, check_free_space
from app.storage.os_errors import writing
from app.storage.workers import Workers

# Threads are told of so many bytes at a time.
_BUFFER_BYTES = 1024 * 1024
_disk = Workers("downloads", 4)
_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 60.0  # for a connection, and for each of its next bytes
_PAUSE_SECONDS = 1.0
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_BEGINNING_BYTES = 4096
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose part a file is. A part goes on where another answer has the same origin, and `version` is not empty."""

    url: str
    version: str = ""
    total_bytes: int | None = None


class PartFile:
    """`path` holds the first `size` bytes of what `origin` says, which is noted beside it."""

    def __init__(self, path: Path, max_bytes: int, report: Callable[[int, int | None], None]) -> None:
        self.path = path
        self.origin = Origin("")
        self.size = 0
        self._note = path.with_name(f"{path.name}.json")
        self._max_bytes = max_bytes
        self._report = report
        self._buffer = bytearray()

    @property
    def arrived(self) -> int:
        """Bytes that have arrived, some of which are not written down yet."""
        return self.size + len(self._buffer)

    @property
    def is_whole(self) -> bool:
        return self.origin.total_bytes == self.size

    async def look(self, url: str) -> None:
        """Find what an earlier attempt has left of this URL."""
        await _disk.run_to_its_end(partial(self._look, url))

    async def begin(self, origin: Origin) -> None:
        """Begin anew with what comes from somewhere. Raises `StageFailed` where it is too large, and `StorageFull`."""
        self._check_size(origin.total_bytes or 0)
        self.origin, self.size = origin, 0
        self._buffer.clear()
        await _disk.run_to_its_end(self._begin)

    async def write(self, data: bytes) -> None:
        """Append what has arrived. Raises `StageFailed` where it is too much, and `StorageFull`."""
        self._check_size(self.arrived + len(data))
        self._buffer += data
        self._report(self.arrived, self.origin.total_bytes)
        if len(self._buffer) >= _BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write down what has arrived so far. Raises `StorageFull`."""
        if self._buffer:
            await _disk.run_to_its_end(self._flush)

    async def discard(self) -> None:
        self.origin, self.size = Origin(""), 0
        self._buffer.clear()
        await _disk.run_to_its_end(self._discard)

    def _look(self, url: str) -> None:
        with suppress(OSError, ValueError, TypeError):
            origin, size = Origin(**json.loads(self._note.read_text("utf-8"))), self.path.stat().st_size
            if origin.url == _digest(url) and origin.version:
                self.origin, self.size = replace(origin, url=url), size

    def _begin(self) -> None:
        with writing():
            self.path.write_bytes(b"")  # what an earlier attempt has left is free again
            check_free_space(self.path.parent, self.origin.total_bytes or 0, "the video")
            noted = asdict(self.origin) | {"url": _digest(self.origin.url)}
            self._note.write_text(json.dumps(noted), "utf-8")

    def _flush(self) -> None:
        with writing(), self.path.open("r+b") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(self._buffer)
        self.size += len(self._buffer)
        self._buffer.clear()

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise StageFailed(f"A video may have at most {self._max_bytes} bytes, and the one at the URL has more")


def _digest(url: str) -> str:
    """Return what a note beside a file knows a URL by: the URL itself may be signed."""
    return hashlib.sha256(url.encode()).hexdigest()


class WebPage(StageFailed):
    """What is at the URL is to be read by people."""

    def __init__(self) -> None:
        super().__init__("The URL leads to a web page, and yt-dlp, which finds the videos of pages, is not installed")


async def fetch_from_bucket(storage: Storage, url: str, part: PartFile) -> None:
    """Raises `StageFailed`."""
    try:
        async with storage.opened(url) as file:
            origin = Origin(url, file.stored.version, file.stored.size)
            if part.origin != origin:
                await part.begin(origin)
            async for chunk in file.read(part.size):
                await part.write(chunk)
            await part.flush()
    except FileMissing:
        raise StageFailed("There is no file at the gs:// URL") from None
    except StorageUnavailable as error:
        raise TransientFailure(str(error)) from None
    if not part.is_whole:
        raise TransientFailure("The file in the bucket was replaced while it was read")


async def fetch_over_http(url: str, part: PartFile, allowed_hosts: Collection[str]) -> None:
    """Go on as long as each connection brings something. Raises `StageFailed`, `WebPage` and `AddressRefused`."""
    furthest = part.size
    while not part.is_whole:
        try:
            await _fetch_rest(url, part, allowed_hosts)
            return
        except TransientFailure as error:
            await part.flush()
            if part.size <= furthest:
                raise
            _log.info("A download goes on after %s bytes: %s", part.size, error)
            furthest = part.size
            await asyncio.sleep(_PAUSE_SECONDS)


async def _fetch_rest(url: str, part: PartFile, allowed_hosts: Collection[str]) -> None:
    # What is compressed on its way could not go on in its middle.
    headers = {"Accept-Encoding": "identity", **_range_headers(part)}
    async with (
        guarded_client(allowed_hosts, _PATIENCE_SECONDS) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if part.size and response.status_code in (206, 416) and not _continues(response, part):
            await part.discard()
            raise TransientFailure("The video at the URL has changed while it was downloaded")
        check_status(response)
        _check_form(response)
        if response.status_code != 206 or not part.size:
            await part.begin(_origin_of(url, response))
        async for chunk in response.aiter_raw():
            if not part.arrived and _is_page(chunk[:_BEGINNING_BYTES]):
                raise WebPage
            await part.write(chunk)
        await part.flush()


def _is_page(beginning: bytes) -> bool:
    rest = beginning.lstrip()
    while rest.startswith(b"<!--"):
        rest = rest.partition(b"-->")[2].lstrip()
    return _PAGE.match(rest) is not None


def _range_headers(part: PartFile) -> dict[str, str]:
    return {"Range": f"bytes={part.size}-", "If-Range": part.origin.version} if part.size else {}


def _continues(response: httpx.Response, part: PartFile) -> bool:
    """Whether a part of an answer is that of the file which the beginning is here of; some ignore `If-Range`."""
    span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or span is None or int(span[1]) != part.size:
        return False
    total = part.origin.total_bytes
    return _version_of(response) in ("", part.origin.version) and (total is None or span[2] in ("*", str(total)))


def _check_form(response: httpx.Response) -> None:
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() in _PAGE_TYPES:
        raise WebPage
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise StageFailed("The server of the URL sends the video compressed although it was asked not to")


def _origin_of(url: str, response: httpx.Response) -> Origin:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isascii() and length.isdigit() else None
    return Origin(url, _version_of(response), total)


def _version_of(response: httpx.Response) -> str:
    """Return what `If-Range` may name (RFC 9110, 13.1.5): an ETag that is not weak, or a date."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(response.headers.get("Last-Modified", ""))
