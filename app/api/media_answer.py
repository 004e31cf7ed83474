"""Answers with stored files: whole, in ranges, 304, or a redirect to the bucket that serves them."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from app.api.answers import Error, Responses
from app.api.conditional_requests import (
    ByteRange,
    HttpValidators,
    check_preconditions,
    find_requested_ranges,
    unsatisfiable_range_answer,
)
from app.core.errors import StorageUnavailable
from app.core.media_types import UNKNOWN_TYPE
from app.media.probe import SIGNATURE_BYTES, detect_content_type
from app.storage import OpenFile, Storage, StoredFile

# A player that seeks, and a page that shows a thumbnail again, follow the same redirect without a new request.
_REDIRECT_SECONDS = 240
# Detected types by URL and version: a player requests hundreds of ranges of one file.
_media_types: LRUCache[tuple[str, str], str] = LRUCache(4096)


def document_media_responses(*media_types: str) -> Responses:
    file = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {
        200: {"description": "The whole file", "content": file},
        206: {"description": "The parts that `Range` requests", "content": file | {"multipart/byteranges": {}}},
        304: {"description": "The client's copy is current"},
        307: {"description": "The file is in a bucket, which serves it at the address in `Location`"},
        404: {"model": Error},
        412: {"model": Error, "description": "The file is another version than the request requires"},
        416: {"model": Error, "description": "The file has no such part; `Content-Range` names its size"},
        503: {"model": Error, "description": "The database or the file's storage is not available"},
    }


class MediaAnswer(Response):
    """Response to GET or HEAD with a stored file: whole, in byte ranges, 304, 412, 416, or a redirect to its bucket.

    The media type is detected from the content; what is neither video, audio nor image is sent as an attachment.
    """

    def __init__(
        self,
        storage: Storage,
        opening_file: AbstractAsyncContextManager[OpenFile],
        *,
        cache_control: str = "private, no-cache",  # the client keeps its copy and revalidates it each time
    ) -> None:
        super().__init__()
        self._storage = storage
        self._opening_file = opening_file
        self._cache_control = cache_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opening_file as file:
            answer = await self._choose_file_answer(Request(scope), file)
            await answer(scope, receive, send)

    async def _choose_file_answer(self, request: Request, file: OpenFile) -> Response:
        stored = file.stored
        # A signed URL is valid only for the method that it was signed for.
        link = await self._storage.get_signed_url(stored.url) if request.method == "GET" else None
        if link is not None:
            seconds = min(_REDIRECT_SECONDS, link.expires_in_seconds // 2)
            return RedirectResponse(link.url, 307, {"Cache-Control": f"private, max-age={seconds}"})
        validators = HttpValidators(f'"{stored.version}"', stored.modified)
        headers = {"Cache-Control": self._cache_control, "Accept-Ranges": "bytes", **validators.make_etag_headers()}
        if refusal := check_preconditions(request, validators, headers):
            return refusal
        ranges = find_requested_ranges(request, stored.size, validators)
        if ranges == []:
            return unsatisfiable_range_answer(stored.size, headers)
        return _file_answer(file, ranges, await _detect_media_type(file), headers)


class _FilePartsAnswer(Response):
    """Response that sends byte ranges of a file, and texts between them, and stops when the client disconnects."""

    def __init__(
        self, file: OpenFile, parts: Sequence[bytes | ByteRange], status: int, headers: dict[str, str]
    ) -> None:
        self._file = file
        self._parts = parts
        length = sum(len(part) if isinstance(part, bytes) else part.size for part in parts)
        super().__init__(None, status, {**headers, "Content-Length": str(length)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with (
            aclosing(self._iterate_response_chunks(scope["method"])) as chunks,
            _watch_disconnect(receive) as disconnect,
        ):
            chunk = await anext(chunks, b"")  # an unreadable file is reported before a status line is sent
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await asyncio.sleep(0)  # neither a read from memory nor a send yields to other tasks
                if disconnect.done():
                    return
                chunk = await anext(chunks, b"")
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _iterate_response_chunks(self, method: str) -> AsyncGenerator[bytes]:
        for part in () if method == "HEAD" else self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            left = part.size
            async with aclosing(self._file.read(part.start, part.stop)) as chunks:
                async for chunk in chunks:
                    left -= len(chunk)
                    yield chunk
            if left:
                raise StorageUnavailable("The file became shorter while it was read")


def _file_answer(file: OpenFile, ranges: list[ByteRange] | None, media_type: str, headers: dict[str, str]) -> Response:
    headers["Content-Type"] = media_type
    if media_type == UNKNOWN_TYPE:
        headers["Content-Disposition"] = "attachment"
    if ranges is None:
        return _FilePartsAnswer(file, [ByteRange(0, file.stored.size)], 200, headers)
    if len(ranges) == 1:
        headers["Content-Range"] = ranges[0].make_content_range_header(file.stored.size)
        return _FilePartsAnswer(file, ranges, 206, headers)
    boundary = secrets.token_hex(12)
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    return _FilePartsAnswer(file, _make_multipart_parts(ranges, file.stored, media_type, boundary), 206, headers)


def _make_multipart_parts(
    ranges: list[ByteRange], file: StoredFile, media_type: str, boundary: str
) -> list[bytes | ByteRange]:
    parts: list[bytes | ByteRange] = []
    for each in ranges:
        heads = f"Content-Type: {media_type}\r\nContent-Range: {each.make_content_range_header(file.size)}\r\n\r\n"
        parts += [f"\r\n--{boundary}\r\n{heads}".encode(), each]
    return [*parts, f"\r\n--{boundary}--\r\n".encode()]


async def _detect_media_type(file: OpenFile) -> str:
    key = (file.stored.url, file.stored.version)
    known = _media_types.get(key)
    if known is None:
        async with aclosing(file.read(0, SIGNATURE_BYTES)) as chunks:
            head = b"".join([chunk async for chunk in chunks])
        known = _media_types[key] = detect_content_type(head, file.stored.url)
    return known


@asynccontextmanager
async def _watch_disconnect(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    """Yield a task that is done once the client has disconnected: `send` does not report that."""

    async def wait_for_disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(wait_for_disconnect())
    try:
        yield task
    finally:
        task.cancel()
