"""Identifiers that are derived from the names of files: the next free one, for each of many that arrive at once."""

from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from itertools import chain, count

from app.database import Database
from app.repositories import VideoRepository

# Names of this process's uploads whose rows are still to come. Another process may take one: then the row decides.
_reserved: set[str] = set()


@asynccontextmanager
async def reserve_free_name(database: Database, base: str) -> AsyncIterator[str]:
    """Give `base`, or it with the least number from 2 on that is free, and reserve it until the block ends."""
    async with database.connect() as conn:
        taken = await VideoRepository(conn).list_names(base)
    name = _choose_free(base, taken)
    _reserved.add(name)  # without a pause since it was chosen
    try:
        yield name
    finally:
        _reserved.discard(name)


def _choose_free(base: str, taken: Set[str]) -> str:
    names = chain([base], (f"{base}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken and name not in _reserved)
