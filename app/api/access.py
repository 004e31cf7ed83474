"""Who may: the key that a request must carry where the settings hold any, and a warning where they hold none."""

import logging
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.docs import ASSET_PATHS, PAGE_PATHS
from app.api.errors import error_answer
from app.core.addresses import OPEN_TO_ALL, is_loopback
from app.core.api_keys import ApiKey, find_api_key

_log = logging.getLogger(__name__)

_OPEN = frozenset({"/", "/health", "/openapi.json", *PAGE_PATHS, *ASSET_PATHS})
READS = frozenset({"GET", "HEAD", "OPTIONS"})

_MISSING = "Send an API key, as Authorization: Bearer or as X-API-Key"
_UNKNOWN = "The API key is not valid"
_SEVERAL = "The request carries different API keys"
_READ_ONLY = "This API key may only read"
_NO_ADMIN = "Changing models needs an API key of the scope admin"
_MODELS = "/api/admin/models"  # whoever changes one decides where prompts, audio and its API key are sent


def is_open(path: str) -> bool:
    """Tell whether an address, without the folder of a proxy before it, wants no key."""
    return path in _OPEN or path.startswith("/health/")


def needs_admin(path: str, method: str) -> bool:
    """Whether a request changes the registry of models."""
    return method not in READS and (path == _MODELS or path.startswith(f"{_MODELS}/"))


class KeyRequired:
    """Plain ASGI: 401 without a key of the settings, 403 where one would change something that it may not.

    All is closed but the few addresses that tell nothing of the library, so that a route that is added is closed too.
    A browser's preflight carries no key; it is answered before it comes here.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or is_open(path):
            await self._app(scope, receive, send)
            return
        sent = _sent_keys(Headers(scope=scope))
        if len(sent) != 1:
            await _refuse(_SEVERAL if sent else _MISSING, scope, receive, send)
            return
        key = find_api_key(self._keys, sent.pop())
        if key is None:
            await _refuse(_UNKNOWN, scope, receive, send)
            return
        scope["api_key"] = key.name  # for the log
        refusal = _find_refusal(key, scope["method"], path)
        if refusal is not None:
            await error_answer(403, refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class OpenToAll:
    """Plain ASGI: logs once that no key is asked for, when a request arrives at an address other than loopback.

    Only the request tells where the server listens: its `--host` is no setting of this application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._has_told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._has_told and scope["type"] == "http":
            host, port = scope.get("server") or ("", None)
            if port is not None and not is_loopback(host):  # a Unix socket has no port
                self._has_told = True
                _log.warning(OPEN_TO_ALL, host, port)
        await self._app(scope, receive, send)


def _find_refusal(key: ApiKey, method: str, path: str) -> str | None:
    if key.access == "read" and method not in READS:
        return _READ_ONLY
    return _NO_ADMIN if key.access != "admin" and needs_admin(path, method) else None


def _sent_keys(headers: Headers) -> set[bytes]:
    """Return the different keys that a request carries; credentials of another scheme count as a wrong one."""
    sent = {value.encode("latin-1") for value in headers.getlist("x-api-key")}
    for value in headers.getlist("authorization"):
        scheme, _, secret = value.partition(" ")
        sent.add(secret.strip().encode("latin-1") if scheme.lower() == "bearer" else b"")
    return sent


async def _refuse(detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    await error_answer(401, detail, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
