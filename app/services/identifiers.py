"""Identifiers as clients write them in addresses."""


def findable(identifier: str) -> str:
    """Return the identifier, or the empty one, which nothing has, for one that PostgreSQL does not even take.

    What is not found is told as such; a statement that failed would fail for all who share it.
    """
    return "" if "\0" in identifier else identifier
