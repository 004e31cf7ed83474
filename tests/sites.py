"""A web site on loopback that answers as a test tells it to."""

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Answer = Callable[["Visit"], None]


class Visit:
    """One request, to be answered."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.method, self.path, self.body = handler.command, handler.path, body
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self._handler = handler

    def send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, claimed_size: int | None = None
    ) -> None:
        """Send an answer; one that claims more bytes than there are looks like a connection that was cut."""
        self._handler.send_response_only(status)
        for name, value in (headers or {}).items():
            self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body) if claimed_size is None else claimed_size))
        self._handler.send_header("Connection", "close")
        self._handler.end_headers()
        self.write(body)

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            self._handler.wfile.write(data)
            self._handler.wfile.flush()

    def wait_until_gone(self) -> None:
        """Wait until the client closes the connection."""
        with suppress(OSError):
            self._handler.connection.recv(1)


class Site:
    """`site.answers["/video.mp4"] = sending(content)`; what has no answer is 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.visits: list[Visit] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> "Site":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                visit = Visit(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))
                site.visits.append(visit)
                self.close_connection = True
                site.answers.get(self.path.partition("?")[0], sending(b"", 404))(visit)

            do_GET = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


def sending(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return lambda visit: visit.send(status, content, headers)


def redirecting(to: str) -> Answer:
    return lambda visit: visit.send(302, headers={"Location": to})


def in_turn(*answers: Answer) -> Answer:
    """Give each answer once, and the last one from then on."""
    left = list(answers)
    return lambda visit: (left.pop(0) if len(left) > 1 else left[0])(visit)


def cutting(content: bytes, sent: int, etag: str = '"one"') -> Answer:
    """Break off after `sent` bytes of what was asked for."""
    return lambda visit: _send_range(visit, content, etag, sent)


def ranging(content: bytes, etag: str = '"one"') -> Answer:
    """Send the range that is asked for, where the file is still the one that the client has a part of."""
    return lambda visit: _send_range(visit, content, etag, len(content))


def _send_range(visit: Visit, content: bytes, etag: str, sent: int) -> None:
    asked = re.fullmatch(r"bytes=(\d+)-", visit.headers.get("range", ""))
    if asked and visit.headers.get("if-range", etag) == etag:
        start = int(asked[1])
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        visit.send(206, content[start:][:sent], {"ETag": etag, "Content-Range": span}, len(content) - start)
    else:
        visit.send(200, content[:sent], {"ETag": etag, "Accept-Ranges": "bytes"}, len(content))
