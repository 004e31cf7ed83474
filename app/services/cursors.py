"""Cursors: where a page ended and of which list, in a form that clients pass on unread."""

import base64
import hashlib
from typing import Any

import orjson

from app.core.errors import InvalidInput


def encode_cursor(of: list[Any], place: Any) -> str:
    """Return the cursor behind `place` in the list that `of` tells from all others: its name and its filters."""
    text = orjson.dumps([_digest(of), place])
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_cursor(of: list[Any], cursor: str) -> Any:
    """Return the place. Raises `InvalidInput` where this is no cursor, or one of another list."""
    try:
        digest, place = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, TypeError):
        raise invalid_cursor() from None
    if digest != _digest(of):
        raise InvalidInput("cursor: belongs to another list or to other filters")
    return place


def invalid_cursor() -> InvalidInput:
    """What a place that nothing has written is answered with."""
    return InvalidInput("cursor: is not one that an answer gave")


def _digest(of: list[Any]) -> str:
    return hashlib.blake2s(orjson.dumps(of), digest_size=6).hexdigest()
