"""Sends stored files: whole, in ranges, not at all where the client has them, or from where their home serves them."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from app.api.answers import Error
from app.api.byte_ranges import ByteRange, parse_ranges
from app.api.conditions import Validators, failed_condition, range_still_fits
from app.api.errors import error_answer
from app.core.errors import StorageUnavailable
from app.core.media_types import UNKNOWN_TYPE
from app.media.probe import SIGNATURE_BYTES, detect_content_type
from app.storage import OpenFile, Storage, StoredFile

# A player that seeks, and a page that shows a picture again, need not ask here each time.
_REDIRECT_SECONDS = 240
# What files were found to be, by address and version: a player asks for hundreds of parts of one.
_types: LRUCache[tuple[str, str], str] = LRUCache(4096)


def media_responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Document what `MediaAnswer` can answer."""
    file = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {
        200: {"description": "The whole file", "content": file},
        206: {"description": "The parts that `Range` asks for", "content": file | {"multipart/byteranges": {}}},
        304: {"description": "The client's copy is still right"},
        307: {"description": "The file's home serves it, at the address in `Location`"},
        404: {"model": Error},
        412: {"model": Error, "description": "The file is not the one that the request is meant for"},
        416: {"model": Error, "description": "The file has no such part; `Content-Range` names its size"},
        503: {"model": Error, "description": "The database or the file's home does not answer now"},
    }


class MediaAnswer(Response):
    """Answers a GET or a HEAD with a stored file, which stays the same one from its first byte to the last.

    `opened` gives it, and what that raises is raised. Its media type is that of its content; a file that is neither
    video, audio nor image is an attachment, so that no browser shows it.
    """

    def __init__(
        self,
        storage: Storage,
        opened: AbstractAsyncContextManager[OpenFile],
        *,
        cache_control: str,
    ) -> None:
        super().__init__()
        self._storage = storage
        self._opened = opened
        self._cache_control = cache_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opened as file:
            answer = await self._choose(Request(scope), file)
            await answer(scope, receive, send)

    async def _choose(self, request: Request, file: OpenFile) -> Response:
        stored = file.stored
        # A signed address is good for the method that it was signed for.
        link = await self._storage.get_signed_url(stored.url) if request.method == "GET" else None
        if link is not None:
            seconds = min(_REDIRECT_SECONDS, link.expires_in_seconds // 2)
            return RedirectResponse(link.url, 307, {"Cache-Control": f"private, max-age={seconds}"})
        validators = Validators(f'"{stored.version}"', stored.modified)
        headers = {"Cache-Control": self._cache_control, "Accept-Ranges": "bytes", **validators.headers()}
        match failed_condition(request.headers, validators):
            case 304:
                return Response(status_code=304, headers=headers)
            case 412:
                return error_answer(412, "The file has changed", headers)
        ranges = _wanted_ranges(request, stored, validators)
        if ranges == []:
            return error_answer(416, "Range not satisfiable", {**headers, "Content-Range": f"bytes */{stored.size}"})
        return _send(file, ranges, await _find_type(file), headers)


class _FileParts(Response):
    """Sends texts and parts of a file one after the other, and reads on only when the client has taken the last chunk.

    What cannot be sent as it was promised ends the connection: the client sees that it has not got everything.
    """

    def __init__(
        self, file: OpenFile, parts: Sequence[bytes | ByteRange], status: int, headers: dict[str, str]
    ) -> None:
        self._file = file
        self._parts = parts
        length = sum(len(part) if isinstance(part, bytes) else part.size for part in parts)
        super().__init__(None, status, {**headers, "Content-Length": str(length)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._read(scope["method"])) as chunks, _departure(receive) as departure:
            chunk = await anext(chunks, b"")  # a file that cannot be read is told before a status is
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await asyncio.sleep(0)  # neither a read from memory nor a send need wait, and others want a turn too
                if departure.done():
                    return
                chunk = await anext(chunks, b"")
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read(self, method: str) -> AsyncGenerator[bytes]:
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


def _wanted_ranges(request: Request, file: StoredFile, validators: Validators) -> list[ByteRange] | None:
    header = request.headers.get("range")
    if header is None or request.method != "GET" or not range_still_fits(request.headers, validators):
        return None
    return parse_ranges(header, file.size)


def _send(file: OpenFile, ranges: list[ByteRange] | None, media_type: str, headers: dict[str, str]) -> Response:
    headers["Content-Type"] = media_type
    if media_type == UNKNOWN_TYPE:
        headers["Content-Disposition"] = "attachment"
    if ranges is None:
        return _FileParts(file, [ByteRange(0, file.stored.size)], 200, headers)
    if len(ranges) == 1:
        headers["Content-Range"] = _content_range(ranges[0], file.stored)
        return _FileParts(file, ranges, 206, headers)
    boundary = secrets.token_hex(12)
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    return _FileParts(file, _multipart(ranges, file.stored, media_type, boundary), 206, headers)


def _multipart(ranges: list[ByteRange], file: StoredFile, media_type: str, boundary: str) -> list[bytes | ByteRange]:
    """RFC 9110, section 14.6."""
    parts: list[bytes | ByteRange] = []
    for each in ranges:
        heads = f"Content-Type: {media_type}\r\nContent-Range: {_content_range(each, file)}\r\n\r\n"
        parts += [f"\r\n--{boundary}\r\n{heads}".encode(), each]
    return [*parts, f"\r\n--{boundary}--\r\n".encode()]


def _content_range(part: ByteRange, file: StoredFile) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{file.size}"


async def _find_type(file: OpenFile) -> str:
    key = (file.stored.url, file.stored.version)
    known = _types.get(key)
    if known is None:
        async with aclosing(file.read(0, SIGNATURE_BYTES)) as chunks:
            head = b"".join([chunk async for chunk in chunks])
        known = _types[key] = detect_content_type(head, file.stored.url)
    return known


@asynccontextmanager
async def _departure(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    """Give a task that is done when the client has gone: `send` alone does not tell."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(wait())
    try:
        yield task
    finally:
        task.cancel()
