"""Failures of stages: their descriptions, and retries while PostgreSQL is unavailable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import psycopg

from app.core.errors import DatabaseUnavailable, RunLost, VideoMomentsError
from app.core.masking import mask_secrets, mask_values
from app.core.text import escape_controls
from app.core.thread_pool import report_idle_time
from app.database.errors import domain_error
from app.models.runs import StageRecord
from app.models.stages import STAGE_TABLE, Stage
from app.storage.file_system import is_disk_full

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MAX_LENGTH = 2000
# Ten minutes in all: the answer of a model that was paid for is not dropped for a restart of PostgreSQL.
_DELAYS = (0.5, 1.0, 2.0, 4.0, *[5.0] * 118)


def mask_record(record: StageRecord) -> StageRecord:
    return replace(
        record,
        error=_mask_reason(record.error),
        skip_reason=_mask_reason(record.skip_reason),
        result=mask_values(record.result),
    )


def _mask_reason(reason: str | None) -> str | None:
    return None if reason is None else escape_controls(mask_secrets(reason))


def describe_failure(error: BaseException, stage: Stage) -> str:
    """Return the failure of a stage as a sentence for users; an unexpected error is logged with its traceback."""
    known = domain_error(error) if isinstance(error, psycopg.Error) else error
    if isinstance(known, VideoMomentsError):
        return escape_controls(mask_secrets(str(known)))[:_MAX_LENGTH]
    if isinstance(error, OSError) and is_disk_full(error):
        return f"There is no room for the files of the stage {stage}"
    _log.error("%s failed", STAGE_TABLE[stage].title, exc_info=error)
    return f"{STAGE_TABLE[stage].title} failed unexpectedly, see the log of the worker ({type(error).__name__})"


def first_error(error: BaseException) -> BaseException:
    """Return the first error of a group, or its `RunLost` where it has one; any other error as it is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    lost = error.subgroup(RunLost)
    return first_error((lost or error).exceptions[0])


class PersistentOutage(DatabaseUnavailable):
    """An outage that outlasts all retries. Not retried again by an outer `retry_outage`."""


class OutageBackoff:
    """The delays between retries while PostgreSQL is unavailable. `subject` begins the sentence that is logged."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._delays = iter(_DELAYS)

    def next_delay(self, error: BaseException) -> float | None:
        """Return the seconds before the next retry; None for an error that is not to be retried here.

        Raises `PersistentOutage` after the last retry.
        """
        reason = find_outage(error)
        if reason is None or isinstance(error, PersistentOutage):
            return None
        delay = next(self._delays, None)
        if delay is None:
            raise PersistentOutage(str(reason))
        if delay == _DELAYS[0]:
            _log.warning("%s waits: %s", self._subject, reason)
        return delay


async def retry_outage(subject: str, call: Callable[[], Awaitable[T]]) -> T:
    """Call a function, and again while PostgreSQL is unavailable, also where a commit may have succeeded.

    Raises what `call` raises, and `PersistentOutage`. `subject` begins the sentence that is logged. The outage does
    not count against the time limits around it.
    """
    outage, loop = OutageBackoff(subject), asyncio.get_running_loop()
    tried_at: float | None = None
    while True:
        try:
            return await call()
        except (psycopg.Error, DatabaseUnavailable) as error:
            delay = outage.next_delay(error)
            if delay is None:
                raise
        report_idle_time(delay + (0.0 if tried_at is None else loop.time() - tried_at))
        await asyncio.sleep(delay)
        tried_at = loop.time()


def find_outage(error: BaseException) -> DatabaseUnavailable | None:
    known = domain_error(error) if isinstance(error, psycopg.Error) else error
    return known if isinstance(known, DatabaseUnavailable) else None
