"""What happens around every request: its id, its line in the log, and the answer to an error nobody expected."""

import asyncio
import logging
import re
import secrets
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answers import json_answer
from app.api.errors import error_answer
from app.core.logging import request_id
from app.core.text import to_nfc

_log = logging.getLogger("app.requests")
_PATH_CHARACTERS = "/!$&'()*+,;=:@~"
_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestContext:
    """Plain ASGI: gives each request an id, logs it with its status and duration, and answers what goes wrong with 500.

    The id is the request's own `X-Request-ID`, or a new `req_` and 12 hexadecimal characters; the answer carries it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not scope["path"].isascii():  # identifiers are stored with composed letters
            scope["path"] = to_nfc(scope["path"])
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(6)}"
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
            await _unexpected_error(scope, receive, send_with_id)
        finally:
            _log_request(scope, status, time.perf_counter() - started)
            request_id.reset(token)


class SlashRedirect:
    """Plain ASGI, for paths that no route has: 307 to the one that differs in the slash at the end, else 404.

    Starlette's own redirect is an absolute URL, put together from whatever Host a request carries.
    """

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


async def _unexpected_error(scope: Scope, receive: Receive, send: Send) -> None:
    body = {"error": "Internal server error", "detail": "Internal server error", "status_code": 500}
    await json_answer(body, 500)(scope, receive, send)


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    if _log.isEnabledFor(logging.INFO):
        milliseconds = round(seconds * 1000, 1)
        path = quote(scope["path"])  # a line break in it would begin a line of its own
        extra = {"method": scope["method"], "path": path, "status": status, "duration_ms": milliseconds}
        if "api_key" in scope:
            extra["api_key"] = scope["api_key"]  # its name
        _log.info("%s %s %d %.1f ms", scope["method"], path, status, milliseconds, extra=extra)
