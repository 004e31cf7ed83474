"""Failures of stages: their descriptions, and retries while PostgreSQL is unavailable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import psycopg
from tenacity import stop_after_attempt, wait_exponential

from app.core.errors import DatabaseUnavailable, RunLost, VideoMomentsError
from app.core.masking import mask_secrets, mask_values
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
from app.core.text import escape_controls
from app.core.thread_pool import report_idle_time
from app.database.errors import translate_database_error
from app.models.runs import StageRecord
from app.models.stages import STAGE_TABLE, Stage
from app.storage.file_system import is_disk_full_error

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MAX_LENGTH = 2000


def mask_secrets_in_record(record: StageRecord) -> StageRecord:
    return replace(
        record,
        error=_mask_text_or_none(record.error),
        skip_reason=_mask_text_or_none(record.skip_reason),
        result=mask_values(record.result),
    )


def _mask_text_or_none(reason: str | None) -> str | None:
    return None if reason is None else escape_controls(mask_secrets(reason))


def describe_stage_failure(error: BaseException, stage: Stage) -> str:
    """Return a masked sentence for users about a stage's error; an unexpected one is logged with its traceback."""
    known = translate_database_error(error) if isinstance(error, psycopg.Error) else error
    if isinstance(known, VideoMomentsError):
        return escape_controls(mask_secrets(str(known)))[:_MAX_LENGTH]
    if isinstance(error, OSError) and is_disk_full_error(error):
        return f"There is no room for the files of the stage {stage}"
    _log.error("%s failed", STAGE_TABLE[stage].title, exc_info=error)
    return f"{STAGE_TABLE[stage].title} failed unexpectedly, see the log of the worker ({type(error).__name__})"


def unwrap_first_error(error: BaseException) -> BaseException:
    """Return the `RunLost` of an exception group, or else its first error; return any other error as it is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    lost = error.subgroup(RunLost)
    return unwrap_first_error((lost or error).exceptions[0])


class PersistentOutage(DatabaseUnavailable):
    """An outage that outlasts all retries. Not retried again by an outer `retry_outage`."""


def _is_retried_outage(error: BaseException) -> bool:
    return convert_to_outage(error) is not None and not isinstance(error, PersistentOutage)


# Ten minutes in all: the answer of a model that was paid for is not dropped for a restart of PostgreSQL.
_OUTAGE_POLICY = RetryPolicy(_is_retried_outage, wait_exponential(multiplier=0.5, max=5.0), stop_after_attempt(123))


async def retry_outage(subject: str, call: Callable[[], Awaitable[T]], *, is_idle: bool = True) -> T:
    """Call a function, and again for ten minutes while PostgreSQL is unavailable, even if a commit may have succeeded.

    Raises what `call` raises, and `PersistentOutage`. `subject` begins the sentence that is logged. The waits do not
    count against the time limits around it, nor, with `is_idle`, the later calls.
    """
    loop = asyncio.get_running_loop()
    called_at: float | None = None

    def report(failed: FailedCall) -> None:
        nonlocal called_at
        if called_at is None:
            _log.warning("%s waits: %s", subject, convert_to_outage(failed.error))
        elif is_idle:
            report_idle_time(loop.time() - called_at)
        report_idle_time(failed.wait)
        called_at = loop.time() + failed.wait

    try:
        return await call_with_retries(call, _OUTAGE_POLICY, before_wait=report)
    except (psycopg.Error, DatabaseUnavailable) as error:
        if _is_retried_outage(error):
            raise PersistentOutage(str(convert_to_outage(error))) from error
        raise


def convert_to_outage(error: BaseException) -> DatabaseUnavailable | None:
    """Return the error as `DatabaseUnavailable` if it is an outage of PostgreSQL, else None."""
    known = translate_database_error(error) if isinstance(error, psycopg.Error) else error
    return known if isinstance(known, DatabaseUnavailable) else None
