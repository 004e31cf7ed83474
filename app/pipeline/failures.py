"""Failures of a stage in words, and what is tried again while PostgreSQL is away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import psycopg

from app.core.errors import DatabaseUnavailable, RunLost, VideoMomentsError
from app.core.masking import mask_secrets, mask_values
from app.core.text import escape_controls
from app.core.turns import note_idle
from app.database.errors import domain_error
from app.models.run import StageRecord
from app.models.stages import STAGE_TABLE, Stage
from app.storage.os_errors import is_full

_log = logging.getLogger(__name__)
_LENGTH = 2000
T = TypeVar("T")
# Ten minutes in all: what was paid for is not thrown away in a minute.
_PAUSES = (0.5, 1.0, 2.0, 4.0, *[5.0] * 118)


def mask_record(record: StageRecord) -> StageRecord:
    """Return a record without secrets in its reasons and in what it names, its reasons on one line."""
    return replace(
        record,
        error=_mask_reason(record.error),
        skip_reason=_mask_reason(record.skip_reason),
        result=mask_values(record.result),
    )


def _mask_reason(reason: str | None) -> str | None:
    return None if reason is None else escape_controls(mask_secrets(reason))


def describe_failure(error: BaseException, stage: Stage) -> str:
    """Return the reason; one that nobody foresaw is in the log, with all that belongs to it, and not in the text."""
    known = domain_error(error) if isinstance(error, psycopg.Error) else error
    if isinstance(known, VideoMomentsError):
        return escape_controls(mask_secrets(str(known)))[:_LENGTH]
    if isinstance(error, OSError) and is_full(error):
        return f"There is no room for the files of the stage {stage}"
    _log.error("%s failed", STAGE_TABLE[stage].title, exc_info=error)
    return f"{STAGE_TABLE[stage].title} failed unexpectedly, see the log of the worker ({type(error).__name__})"


def first_error(error: BaseException) -> BaseException:
    """Return the error of several at once that decides: that the run is lost, or the first one. Any other is itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    lost = error.subgroup(RunLost)
    return first_error((lost or error).exceptions[0])


class PersistentOutage(DatabaseUnavailable):
    """An outage that lasts longer than it is waited for. Not retried again by an outer `retry_outage`."""


class OutageBackoff:
    """The pauses between two tries while PostgreSQL is away. `what` waits, and is the beginning of a sentence."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pauses = iter(_PAUSES)

    def next_delay(self, error: BaseException) -> float | None:
        """Return the seconds before the next try; None for an error that is no outage, or that was waited for within.

        Raises `PersistentOutage` after the last try.
        """
        reason = find_outage(error)
        if reason is None or isinstance(error, PersistentOutage):
            return None
        pause = next(self._pauses, None)
        if pause is None:
            raise PersistentOutage(str(reason))
        if pause == _PAUSES[0]:
            _log.warning("%s waits: %s", self._what, reason)
        return pause


async def retry_outage(what: str, do: Callable[[], Awaitable[T]]) -> T:
    """Do something, again while PostgreSQL is away; what was done and not heard of is done again, too.

    Raises what `do` raises, and `PersistentOutage`. `what` is the beginning of a sentence. The outage does not count
    against the time limits around it.
    """
    outage, loop = OutageBackoff(what), asyncio.get_running_loop()
    tried_at: float | None = None
    while True:
        try:
            return await do()
        except (psycopg.Error, DatabaseUnavailable) as error:
            pause = outage.next_delay(error)
            if pause is None:
                raise
        note_idle(pause + (0.0 if tried_at is None else loop.time() - tried_at))
        await asyncio.sleep(pause)
        tried_at = loop.time()


def find_outage(error: BaseException) -> DatabaseUnavailable | None:
    """Return the outage behind an error, None for any other error."""
    told = domain_error(error) if isinstance(error, psycopg.Error) else error
    return told if isinstance(told, DatabaseUnavailable) else None
