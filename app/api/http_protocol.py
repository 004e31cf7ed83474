"""uvicorn's HTTP protocol with the limits that it lacks: `uvicorn --http app.api.http_protocol:LimitedProtocol`."""

import asyncio
import logging
import re
from typing import Any

from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.api.browser_policy import PAGE_HEADERS
from app.api.errors import error_answer
from app.core.config import get_settings

HEAD_BYTES = 64 * 1024  # of the request line and all headers; of what stands between and behind the chunks of a body
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
_ABSOLUTE_TARGET = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

_log = logging.getLogger(__name__)


class LimitedProtocol(HttpToolsProtocol):
    """A client's connection: 414 or 431 for a large head, 408 for a slow head or body, 503 for one connection too many.

    The limits hold before the application sees a request, and so before its API key is checked.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limit_concurrency = None  # looked at for a connection, not for each of its requests
        self._most_connections = config.limit_concurrency or get_settings().limit_concurrency
        self.ws_protocol_class = None  # the application has no WebSocket
        self._is_one_too_many = self._is_ended = False
        self._messages = 0  # that have begun
        self._is_in_head = self._is_in_body = False
        self._url_bytes = self._head_bytes = self._unfinished_bytes = 0
        self._body_bytes = self._framing_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._last_byte_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._timed_flow = _ResumeTimeFlowControl(transport, self.loop)
        self._is_one_too_many = len(self.connections) > self._most_connections
        if len(self.connections) == self._most_connections + 1:
            _log.warning("More than %d connections: the next ones get 503 (LIMIT_CONCURRENCY)", self._most_connections)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            return
        if self._is_one_too_many:
            self._close_with_error(503, "The server has too many connections: try again later", {"Retry-After": "5"})
            return
        self._last_byte_at = self.loop.time()
        before, body_bytes = self._get_parsing_state(), self._body_bytes
        super().data_received(data)
        if (
            not self._is_ended and self._get_parsing_state() == before
        ):  # else no more than this one piece can be too much
            self._limit_unparsed_bytes(len(data), self._body_bytes - body_bytes)
        if not self._is_ended and self._timer is None:
            self._start_body_or_head_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._messages += 1
        self._is_in_head = True
        self._url_bytes = self._head_bytes = self._unfinished_bytes = 0
        self._body_bytes = self._framing_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._url_bytes += len(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._is_in_head and self._head_bytes <= HEAD_BYTES:  # no trailer becomes a header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_ended:
            return
        if self._head_bytes > HEAD_BYTES:
            self._refuse_large_head()
            return
        self._is_in_head, self._is_in_body = False, True
        self._stop_timer()
        self._replace_host_by_target_host()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_ended:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_ended:
            self._is_in_body = False
            self._stop_timer()
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._is_ended:
            self._close_with_error(400, "The request is not valid HTTP")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._timer is None and self._is_in_head:  # the head of the next request began to arrive meanwhile
            self._start_head_timer()

    def _replace_host_by_target_host(self) -> None:
        # RFC 9112, section 3.2.2
        if match := _ABSOLUTE_TARGET.fullmatch(self.url):
            self.url = match[2] if match[2].startswith(b"/") else b"/" + match[2]
            self.headers[:] = [header for header in self.headers if header[0] != b"host"] + [(b"host", match[1])]

    def _get_parsing_state(self) -> tuple[int, bool, bool]:
        return self._messages, self._is_in_head, self._is_in_body

    def _limit_unparsed_bytes(self, received_bytes: int, body_bytes: int) -> None:
        """End the connection when unfinished headers, chunk extensions or trailers exceed `HEAD_BYTES`."""
        if self._is_in_head:
            self._unfinished_bytes += received_bytes
            if max(self._unfinished_bytes, self._head_bytes) > HEAD_BYTES:
                self._refuse_large_head()
        elif self._is_in_body:
            self._framing_bytes = 0 if body_bytes else self._framing_bytes + received_bytes
            if max(self._framing_bytes, self._head_bytes) > HEAD_BYTES:
                self._close_with_error(
                    431, f"What stands between and behind the chunks of a body may have {HEAD_BYTES} bytes"
                )

    def _refuse_large_head(self) -> None:
        if self._url_bytes > HEAD_BYTES:
            self._close_with_error(414, f"The address of a request may have {HEAD_BYTES} bytes, with its headers")
        else:
            self._close_with_error(431, f"The headers of a request may have {HEAD_BYTES} bytes, with its address")

    def _is_response_unfinished(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_body_or_head_timer(self) -> None:
        if self._is_in_body:
            self._timer = self.loop.call_at(self._last_byte_at + BODY_SECONDS, self._check_slow_body)
        elif not self._is_response_unfinished():
            self._start_head_timer()

    def _start_head_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._close_idle_or_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_idle_or_slow_head(self) -> None:
        self._timer = None
        if self._is_in_head:
            self._close_with_error(408, f"The headers of the request were not complete after {HEAD_SECONDS:g} s")
        else:
            self.transport.close()

    def _check_slow_body(self) -> None:
        """End the connection if no byte of the body has come for `BODY_SECONDS`, else check again later."""
        now = self.loop.time()
        if self.flow.read_paused or (self._is_response_unfinished() and self.cycle.waiting_for_100_continue):
            self._last_byte_at = now  # it is not the client that is slow
        waits_since = max(self._last_byte_at, self._timed_flow.resumed_at)
        if now - waits_since >= BODY_SECONDS:
            self._timer = None
            self._close_with_error(408, f"Nothing of the request's body came for {BODY_SECONDS:g} s")
        else:
            self._timer = self.loop.call_at(waits_since + BODY_SECONDS, self._check_slow_body)

    def _close_with_error(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        self._is_ended = True
        self._stop_timer()
        is_owed = not self.cycle.response_started if self._is_in_body else not self._is_response_unfinished()
        if is_owed:
            self.transport.write(
                _serialize_http_response(error_answer(status, detail, {"Connection": "close", **(headers or {})}))
            )
        self.transport.close()


class _ResumeTimeFlowControl(FlowControl):
    """uvicorn's flow control that records when reading was last resumed."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self.resumed_at = 0.0

    def resume_reading(self) -> None:
        if self.read_paused:
            self.resumed_at = self._loop.time()
        super().resume_reading()


def _serialize_http_response(answer: Response) -> bytes:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in [*answer.raw_headers, *PAGE_HEADERS])
    return STATUS_LINE[answer.status_code] + lines + b"\r\n" + bytes(answer.body)
