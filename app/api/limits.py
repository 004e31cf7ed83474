"""How large the body of a request may be."""

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import error_answer

_UPLOAD = ("POST", "/api/videos")
_WRONG_LENGTH = "Content-Length is not the length of the body"


class BodyLimit:
    """Plain ASGI: 413 for a body above the limit, at once where its length is announced and else while it arrives.

    An upload of a video has a limit of its own.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._too_large = f"The body of a request may have at most {max_bytes} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_upload(scope):
            await self._app(scope, receive, send)
            return
        try:
            announced = _announced_bytes([value for name, value in scope["headers"] if name == b"content-length"])
        except ValueError:
            await error_answer(400, _WRONG_LENGTH)(scope, receive, send)
            return
        if announced is not None and announced > self._max_bytes:
            await error_answer(413, self._too_large)(scope, receive, send)
        else:
            await self._app(scope, self._counted(receive, announced), send)

    def _counted(self, receive: Receive, announced: int | None) -> Receive:
        """Receive as before, and raise where the body grows above the limit or has another length than announced."""
        arrived = 0

        async def receive_counted() -> Message:
            nonlocal arrived
            message = await receive()
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                if arrived > self._max_bytes:
                    raise HTTPException(413, self._too_large)
                ends = not message.get("more_body", False)
                if announced is not None and (arrived > announced or (ends and arrived < announced)):
                    raise HTTPException(400, _WRONG_LENGTH)
            return message

        return receive_counted


def _is_upload(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return (scope["method"], path.rstrip("/")) == _UPLOAD


def _announced_bytes(values: Sequence[bytes]) -> int | None:
    """Read the values of Content-Length, which may repeat each other. Raises ValueError."""
    if not values:
        return None
    lengths = {_parse_length(value) for value in values}
    if len(lengths) > 1:
        raise ValueError("different lengths")
    return lengths.pop()


def _parse_length(digits: bytes) -> int:
    if not digits.isdigit():
        raise ValueError("no number")
    return int(digits)
