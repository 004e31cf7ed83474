"""Host and Origin checks (against DNS rebinding and foreign web pages), CORS, and security headers of every answer."""

import logging
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.access import SAFE_METHODS
from app.api.errors import error_answer
from app.core.addresses import (
    ANY_ORIGIN,
    LONGEST_ORIGIN,
    AllowedOrigins,
    is_loopback_host,
    parse_authority,
    parse_host_name,
    parse_origin,
    parse_url_origin,
)
from app.core.config import Settings

_log = logging.getLogger(__name__)

RawHeaders = list[tuple[bytes, bytes]]

_ALL_ADDRESSES = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (a server that listens there has no name by it)
_PREFLIGHT_METHOD = b"access-control-request-method"
_READ_HEADERS = frozenset(
    (b"host", b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", _PREFLIGHT_METHOD)
)
_NO_FOREIGN_SITE = frozenset({b"", b"same-origin", b"none"})
_PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
    "Access-Control-Max-Age": "600",
}

_CONTENT_POLICY = b"content-security-policy"
# Nothing that this server sends may run a script or be framed; a video or an image that is opened by itself is shown.
_DEFAULT_POLICY = (
    _CONTENT_POLICY,
    b"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_FIXED_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
# Those of an answer that no page may embed.
PAGE_HEADERS = [*_FIXED_HEADERS, (b"cross-origin-resource-policy", b"same-origin"), _DEFAULT_POLICY]

_INVALID_HOST = "Send one Host header, a name or an address with its port"
_UNKNOWN_HOST = "This server is not known as {}: open it under another name, or add this one to ALLOWED_HOST_NAMES"
_FOREIGN_PAGE = "Pages of {} may not use this server: add their origin to ALLOW_ORIGINS"
_EVERY_ORIGIN = "ALLOW_ORIGINS is *: every web page that is open in a browser here may use this server as its user can"
_EVERY_HOST = (
    "ALLOWED_HOST_NAMES is * and no API_KEYS are set: a web page may take this server for its own (DNS rebinding)"
)


class _PolicyInput(NamedTuple):
    """The parts of a request that decide whether its web page may use this server."""

    scheme: str
    host: bytes | None
    origin: bytes | None
    referrer: bytes  # its origin: scheme and authority
    site: bytes  # Sec-Fetch-Site
    is_safe: bool
    is_navigation: bool  # of a whole tab; no other page can read what that shows


class _PolicyDecision(NamedTuple):
    """Status and sentence of a refusal, or None, and the headers that are added to the answer."""

    refusal: tuple[int, str] | None
    headers: RawHeaders


class BrowserPolicyMiddleware:
    """Plain ASGI, the outermost: checks the Host and Origin of a request, and adds headers for browsers to its answer.

    `PolicyAnswerMiddleware` further in sends refusals and preflight answers, so that they are logged like the rest.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._origins = AllowedOrigins(settings.allow_origins)
        self._public_origin = parse_url_origin(settings.public_url) if settings.public_url else None
        self._host_names = _list_allowed_host_names(settings)
        self._cached_decision = lru_cache(maxsize=1024)(self._decide_by_host_and_page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        pairs = [
            (name, value[:LONGEST_ORIGIN].strip(b" \t")) for name, value in scope["headers"] if name in _READ_HEADERS
        ]
        found = dict(pairs)
        refusal, added = self._cached_decision(_parse_policy_input(scope, found))
        if len(found) != len(pairs):
            refusal, added = (
                (400, _make_repeated_header_sentence(pairs)),
                self._security_headers(None, is_trusted=False),
            )
        if refusal is not None:
            scope["policy_answer"] = error_answer(*refusal)
        elif scope["method"] == "OPTIONS" and b"origin" in found and _PREFLIGHT_METHOD in found:
            scope["policy_answer"] = _make_preflight_answer(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                has_own_policy = any(name == _CONTENT_POLICY for name, _ in headers)
                message["headers"] = [*headers, *added] if has_own_policy else [*headers, *added, _DEFAULT_POLICY]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _decide_by_host_and_page(self, request: _PolicyInput) -> _PolicyDecision:
        refusal = self._find_host_refusal(request.host) or self._find_page_refusal(request)
        if refusal is not None:
            return _PolicyDecision(refusal, self._security_headers(None, is_trusted=False))
        is_trusted = self._is_trusted_origin(request.referrer if request.origin is None else request.origin, request)
        return _PolicyDecision(None, self._security_headers(request.origin, is_trusted))

    def _find_host_refusal(self, host: bytes | None) -> tuple[int, str] | None:
        if self._host_names is None:
            return None
        try:
            name, _ = parse_authority((host or b"").decode("latin-1"))
        except ValueError:
            return 400, _INVALID_HOST
        return None if name in self._host_names or is_loopback_host(name) else (421, _UNKNOWN_HOST.format(name))

    def _find_page_refusal(self, request: _PolicyInput) -> tuple[int, str] | None:
        if self._origins.allows_all:
            return None
        if request.origin is not None:
            return (
                None
                if self._is_trusted_origin(request.origin, request)
                else (403, _FOREIGN_PAGE.format(_format_origin(request.origin)))
            )
        if request.site in _NO_FOREIGN_SITE:
            return None
        # A browser names no origin for images, players, frames and links, but mostly the page they are on.
        if request.is_safe and (request.is_navigation or self._is_trusted_origin(request.referrer, request)):
            return None
        return 403, _FOREIGN_PAGE.format("other sites")

    def _is_trusted_origin(self, origin_header: bytes, request: _PolicyInput) -> bool:
        """Return whether an Origin value is listed, PUBLIC_URL's, or this server's own as the request addresses it."""
        if self._origins.allows_all:
            return True
        try:
            origin = parse_origin(origin_header.decode("latin-1"))
            if self._origins.allows(origin) or origin == self._public_origin:
                return True
            own = parse_origin(f"{request.scheme}://{(request.host or b'').decode('latin-1')}")
            return request.site != b"cross-site" and origin == own
        except ValueError:
            return False

    def _security_headers(self, origin: bytes | None, is_trusted: bool) -> RawHeaders:
        embeddable_by = b"cross-origin" if is_trusted else b"same-origin"
        headers = [*_FIXED_HEADERS, (b"cross-origin-resource-policy", embeddable_by)]
        if self._origins.allows_all:
            return [*headers, (b"access-control-allow-origin", b"*")]
        headers.append((b"vary", b"Origin, Referer"))
        return headers if origin is None else [*headers, (b"access-control-allow-origin", origin)]


class PolicyAnswerMiddleware:
    """Plain ASGI: sends the refusal or preflight answer of `BrowserPolicyMiddleware` before a key or body is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = scope.get("policy_answer", self._app)
        await answer(scope, receive, send)


def warn_of_wildcard_settings(settings: Settings) -> None:
    if ANY_ORIGIN in settings.allow_origins:
        _log.warning(_EVERY_ORIGIN)
    if ANY_ORIGIN in settings.allowed_host_names and not settings.api_keys:
        _log.warning(_EVERY_HOST)


def _list_allowed_host_names(settings: Settings) -> frozenset[str] | None:
    """Return the host names, beside loopback, that a request may address; None where any may be."""
    names = set(settings.allowed_host_names)
    if ANY_ORIGIN in names or (settings.api_keys and not names):
        return None
    if settings.host not in _ALL_ADDRESSES:
        with suppress(ValueError):
            names.add(parse_host_name(settings.host))
    if settings.public_url:
        names.add(parse_url_origin(settings.public_url).host)
    return frozenset(names)


def _parse_policy_input(scope: Scope, headers: dict[bytes, bytes]) -> _PolicyInput:
    is_navigation = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    return _PolicyInput(
        scope["scheme"],
        headers.get(b"host"),
        headers.get(b"origin"),
        b"/".join(headers.get(b"referer", b"").split(b"/", 3)[:3]),
        headers.get(b"sec-fetch-site", b""),
        scope["method"] in SAFE_METHODS,
        is_navigation,
    )


def _format_origin(origin_header: bytes) -> str:
    text = origin_header.decode("latin-1")
    with suppress(ValueError):
        parse_origin(text)
        return text
    return "an opaque origin"


def _make_repeated_header_sentence(headers: RawHeaders) -> str:
    names = [name for name, _ in headers]
    return f"Send one {next(name for name in names if names.count(name) > 1).decode().title()} header"


def _make_preflight_answer(scope: Scope) -> Response:
    headers = dict(_PREFLIGHT_HEADERS)
    sent = Headers(scope=scope)
    if names := sent.getlist("access-control-request-headers"):
        headers["Access-Control-Allow-Headers"] = ", ".join(names)
    if "access-control-request-private-network" in sent:
        headers["Access-Control-Allow-Private-Network"] = "true"
    return PlainTextResponse("OK", headers=headers)
