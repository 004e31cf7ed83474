"""Opaque page cursors: a position, and a digest of the list and filters it belongs to."""

import base64
import hashlib
from typing import Any

import orjson

from app.core.errors import InvalidInput


def encode_cursor(list_key: list[Any], position: Any) -> str:
    """Return an opaque page cursor: a position in the list whose name and filters are `list_key`."""
    text = orjson.dumps([_make_digest_of_list_key(list_key), position])
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_cursor(list_key: list[Any], cursor: str) -> Any:
    """Return the position in a page cursor. Raises `InvalidInput` for a malformed cursor, or one of another list."""
    try:
        digest, position = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, TypeError):
        raise make_invalid_cursor_error() from None
    if digest != _make_digest_of_list_key(list_key):
        raise InvalidInput("cursor: belongs to another list or to other filters")
    return position


def make_invalid_cursor_error() -> InvalidInput:
    return InvalidInput("cursor: is not one that an answer gave")


def _make_digest_of_list_key(list_key: list[Any]) -> str:
    return hashlib.blake2s(orjson.dumps(list_key), digest_size=6).hexdigest()
