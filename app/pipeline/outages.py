"""Waiting for a PostgreSQL that is away, so that no run fails because a server is started again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from app.core.errors import DatabaseUnavailable
from app.core.turns import note_idle
from app.database.errors import domain_error

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Ten minutes in all: what was paid for is not thrown away in a minute.
_PAUSES = (0.5, 1.0, 2.0, 4.0, *[5.0] * 118)


class OutageLasts(DatabaseUnavailable):
    """An outage that lasts longer than it is waited for. Not retried again by an outer `through_outages`."""


class OutagePauses:
    """The pauses between two tries while PostgreSQL is away. `what` waits, and is the beginning of a sentence."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pauses = iter(_PAUSES)

    def next_pause(self, error: BaseException) -> float | None:
        """Return the seconds before the next try; None for an error that is no outage, or that was waited for within.

        Raises `OutageLasts` after the last try.
        """
        reason = find_outage(error)
        if reason is None or isinstance(error, OutageLasts):
            return None
        pause = next(self._pauses, None)
        if pause is None:
            raise OutageLasts(str(reason))
        if pause == _PAUSES[0]:
            _log.warning("%s waits: %s", self._what, reason)
        return pause


async def through_outages(what: str, do: Callable[[], Awaitable[T]]) -> T:
    """Do something, again while PostgreSQL is away; what was done and not heard of is done again, too.

    Raises what `do` raises, and `OutageLasts`. `what` is the beginning of a sentence. The outage does not count
    against the time limits around it.
    """
    outage, loop = OutagePauses(what), asyncio.get_running_loop()
    tried_at: float | None = None
    while True:
        try:
            return await do()
        except (psycopg.Error, DatabaseUnavailable) as error:
            pause = outage.next_pause(error)
            if pause is None:
                raise
        note_idle(pause + (0.0 if tried_at is None else loop.time() - tried_at))
        await asyncio.sleep(pause)
        tried_at = loop.time()


def find_outage(error: BaseException) -> DatabaseUnavailable | None:
    """Return the outage behind an error, None for any other error."""
    told = domain_error(error) if isinstance(error, psycopg.Error) else error
    return told if isinstance(told, DatabaseUnavailable) else None
