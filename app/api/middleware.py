"""Middleware around every request: its id and log line, unexpected errors, the limit of a body, slash redirects."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Sequence
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answers import json_answer
from app.api.errors import error_answer
from app.core.logging import request_id
from app.core.text import to_nfc

_log = logging.getLogger("app.requests")
_PATH_CHARACTERS = "/!$&'()*+,;=:@~"
_UPLOAD = ("POST", "/api/videos")
_WRONG_LENGTH = "Content-Length is not the length of the body"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestContextMiddleware:
    """Plain ASGI: gives each request an `X-Request-ID`, logs its status, and answers unexpected errors with 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not scope["path"].isascii():  # identifiers are stored with composed letters
            scope["path"] = to_nfc(scope["path"])
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(6)}"
        token = request_id.set(identifier)
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = identifier
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # the server stops and waits no longer
            if status:
                raise
            await error_answer(503, "The server is shutting down", {"Retry-After": "5"})(scope, receive, send_with_id)
        except Exception:
            _log.exception("%s %s failed", scope["method"], quote(scope["path"]))
            if status:
                raise
            body = {"error": "Internal server error", "detail": "Internal server error", "status_code": 500}
            await json_answer(body, 500)(scope, receive, send_with_id)
        finally:
            _log_request(scope, status, time.perf_counter() - started)
            request_id.reset(token)


class BodyLimitMiddleware:
    """Plain ASGI: 413 for a body above the limit, announced or while it arrives; uploads of videos have their own."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._too_large = f"The body of a request may have at most {max_bytes} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_video_upload(scope):
            await self._app(scope, receive, send)
            return
        try:
            announced = _parse_content_length([value for name, value in scope["headers"] if name == b"content-length"])
        except ValueError:
            await error_answer(400, _WRONG_LENGTH)(scope, receive, send)
            return
        if announced is not None and announced > self._max_bytes:
            await error_answer(413, self._too_large)(scope, receive, send)
        else:
            await self._app(scope, self._limit_received_bytes(receive, announced), send)

    def _limit_received_bytes(self, receive: Receive, announced_bytes: int | None) -> Receive:
        """Wrap `receive`: it raises 413 for a body above the limit, 400 for another length than announced."""
        arrived = 0

        async def receive_counted() -> Message:
            nonlocal arrived
            message = await receive()
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                if arrived > self._max_bytes:
                    raise HTTPException(413, self._too_large)
                ends = not message.get("more_body", False)
                if announced_bytes is not None and not (
                    arrived == announced_bytes if ends else arrived <= announced_bytes
                ):
                    raise HTTPException(400, _WRONG_LENGTH)
            return message

        return receive_counted


class SlashRedirect:
    """ASGI application for paths without a route: 307 to the path with or without a slash at the end, else 404."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        other = {**scope, "path": path.rstrip("/") if path.endswith("/") else f"{path}/"}
        if scope["type"] != "http" or all(route.matches(other)[0] is Match.NONE for route in self._router.routes):
            await self._router.not_found(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        url = f"{quote(other['path'], safe=_PATH_CHARACTERS)}?{query}".removesuffix("?")
        await RedirectResponse(url)(scope, receive, send)


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    if _log.isEnabledFor(logging.INFO):
        milliseconds = round(seconds * 1000, 1)
        path = quote(scope["path"])  # a line break in it would begin a line of its own
        extra = {"method": scope["method"], "path": path, "status": status, "duration_ms": milliseconds}
        if "api_key" in scope:
            extra["api_key"] = scope["api_key"]  # its name
        _log.info("%s %s %d %.1f ms", scope["method"], path, status, milliseconds, extra=extra)


def _is_video_upload(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return (scope["method"], path.rstrip("/")) == _UPLOAD


def _parse_content_length(header_values: Sequence[bytes]) -> int | None:
    """Return the one number in all Content-Length headers, None without any. Raises ValueError."""
    if not all(value.isdigit() for value in header_values):
        raise ValueError("not a number")
    lengths = {int(value) for value in header_values}
    if len(lengths) > 1:
        raise ValueError("different lengths")
    return lengths.pop() if lengths else None
