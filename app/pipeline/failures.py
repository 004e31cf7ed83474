"""What is told of a stage that failed: one sentence, whatever went wrong."""

import logging
from dataclasses import replace

import psycopg

from app.core.errors import RunLost, VideoMomentsError
from app.core.masking import mask_secrets, mask_values
from app.core.text import escape_controls
from app.database.errors import domain_error
from app.models.run import StageRecord
from app.models.stages import STAGE_TABLE, Stage
from app.storage.os_errors import is_full

_log = logging.getLogger(__name__)

_LENGTH = 2000


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


def tell_failure(error: BaseException, stage: Stage) -> str:
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
