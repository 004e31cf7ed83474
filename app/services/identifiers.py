"""Identifiers as clients write them in addresses."""

from app.core.text import to_nfc


def findable(identifier: str) -> str:
    """Return the identifier as it is stored, or the empty one, which nothing has, where PostgreSQL does not take it.

    What is not found is told as such; a statement that failed would fail for all who share it.
    """
    return "" if "\0" in identifier else to_nfc(identifier)
