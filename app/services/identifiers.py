"""Identifiers as clients write them in addresses."""

from app.core.text import is_utf8, to_nfc


def findable(identifier: str) -> str:
    """Return the identifier as it is stored, or the empty one, which nothing has, where PostgreSQL does not take it.

    What is not found is told as such; a statement that failed would fail for all who share it.
    """
    return to_nfc(identifier) if "\0" not in identifier and is_utf8(identifier) else ""
