"""Waiting for a PostgreSQL that is away, so that no run fails because a server is started again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from app.core.errors import DatabaseUnavailable
from app.database.errors import domain_error

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Ten minutes in all: what was paid for is not thrown away in a minute.
_PAUSES = (0.5, 1.0, 2.0, 4.0, *[5.0] * 118)


class OutageLasts(DatabaseUnavailable):
    """Nobody who has waited inside what is done waits again around it."""


async def through_outages(what: str, do: Callable[[], Awaitable[T]]) -> T:
    """Do something, again while PostgreSQL is away; what was done and not heard of is done again, too.

    Raises what `do` raises, and `OutageLasts`. `what` is the beginning of a sentence.
    """
    pauses = iter(_PAUSES)
    while True:
        try:
            return await do()
        except (psycopg.Error, DatabaseUnavailable) as error:
            reason = find_outage(error)
            if reason is None or isinstance(error, OutageLasts):
                raise
        pause = next(pauses, None)
        if pause is None:
            raise OutageLasts(str(reason))
        if pause == _PAUSES[0]:
            _log.warning("%s waits: %s", what, reason)
        await asyncio.sleep(pause)


def find_outage(error: Exception) -> DatabaseUnavailable | None:
    """Return what to tell of an error that may pass by itself, None for another one."""
    told = domain_error(error) if isinstance(error, psycopg.Error) else error
    return told if isinstance(told, DatabaseUnavailable) else None
