"""Fetches a film from a URL into a file: over HTTP, or out of a bucket."""

import asyncio
import logging
import re
from collections.abc import Collection

import httpx

from app.core.errors import FileMissing, StageFailed, StorageUnavailable, TransientFailure
from app.core.guarded_http import check_status, guarded_client
from app.pipeline.part_file import Origin, PartFile
from app.storage import Storage

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0  # for a connection, and for each of its next bytes
_PAUSE_SECONDS = 1.0
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_BEGINNING_BYTES = 4096
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)")


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
