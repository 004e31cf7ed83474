"""API keys: required where the settings have any; without keys, a warning for an open server."""

import logging
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.docs import ASSET_PATHS, PAGE_PATHS
from app.api.errors import error_answer
from app.api.mcp import MCP_PATH
from app.core.addresses import OPEN_TO_ALL, is_loopback_host
from app.core.api_keys import ApiKey, find_api_key

_log = logging.getLogger(__name__)

_OPEN_PATHS = frozenset({"/", "/health", "/openapi.json", *PAGE_PATHS, *ASSET_PATHS})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_MISSING = "Send an API key, as Authorization: Bearer or as X-API-Key"
_UNKNOWN = "The API key is not valid"
_SEVERAL = "The request carries different API keys"
_READ_ONLY = "This API key may only read"
_NO_ADMIN = "Changing models needs an API key of the scope admin"
_MODELS = "/api/admin/models"  # a change decides to which server prompts, audio and the API key are sent


def needs_no_api_key(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith("/health/")


def needs_admin_key(path: str, method: str) -> bool:
    return method not in SAFE_METHODS and (path == _MODELS or path.startswith(f"{_MODELS}/"))


class ApiKeyMiddleware:
    """Plain ASGI: 401 without a key of the settings, 403 for a change that the key's scope does not allow."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or needs_no_api_key(path):
            await self._app(scope, receive, send)
            return
        sent = _extract_api_keys(Headers(scope=scope))
        if len(sent) != 1:
            await _send_401(_SEVERAL if sent else _MISSING, scope, receive, send)
            return
        key = find_api_key(self._keys, sent.pop())
        if key is None:
            await _send_401(_UNKNOWN, scope, receive, send)
            return
        scope["api_key"] = key.name  # for the log
        refusal = _find_scope_problem(key, scope["method"], path)
        if refusal is not None:
            await error_answer(403, refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class OpenServerWarningMiddleware:
    """Plain ASGI: logs one warning that no key is required, once a request arrives at an address beyond loopback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._has_warned and scope["type"] == "http":
            host, port = scope.get("server") or ("", None)
            if port is not None and not is_loopback_host(host):  # a Unix socket has no port
                self._has_warned = True
                _log.warning(OPEN_TO_ALL, host, port)
        await self._app(scope, receive, send)


def _find_scope_problem(key: ApiKey, method: str, path: str) -> str | None:
    if path == MCP_PATH and method == "POST":
        return None  # its tools call other routes with the same key
    if key.access == "read" and method not in SAFE_METHODS:
        return _READ_ONLY
    return _NO_ADMIN if key.access != "admin" and needs_admin_key(path, method) else None


def _extract_api_keys(headers: Headers) -> set[bytes]:
    """Return the different keys in `X-API-Key` and `Authorization`; a scheme other than Bearer is a wrong key."""
    sent = {value.encode("latin-1") for value in headers.getlist("x-api-key")}
    for value in headers.getlist("authorization"):
        scheme, _, secret = value.partition(" ")
        sent.add(secret.strip().encode("latin-1") if scheme.lower() == "bearer" else b"")
    return sent


async def _send_401(detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    await error_answer(401, detail, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
