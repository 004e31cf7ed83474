"""Opaque page cursors: a position, and a digest of the list and filters it belongs to."""

import base64
import hashlib
from typing import Any

import orjson

from app.core.errors import InvalidInput


def encode_cursor(list_key: list[Any], position: Any) -> str:
    """Return the cursor after `position` in the list that `list_key` identifies by name and filters."""
    text = orjson.dumps([_digest(list_key), position])
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_cursor(list_key: list[Any], cursor: str) -> Any:
    """Return the position. Raises `InvalidInput` for a malformed cursor, or one of another list."""
    try:
        digest, position = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, TypeError):
        raise invalid_cursor() from None
    if digest != _digest(list_key):
        raise InvalidInput("cursor: belongs to another list or to other filters")
    return position


def invalid_cursor() -> InvalidInput:
    return InvalidInput("cursor: is not one that an answer gave")


def _digest(list_key: list[Any]) -> str:
    return hashlib.blake2s(orjson.dumps(list_key), digest_size=6).hexdigest()
