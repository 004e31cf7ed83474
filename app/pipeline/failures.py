"""What is told of a stage that failed: one sentence, whatever went wrong."""

import logging

import psycopg

from app.core.errors import RunLost, VideoMomentsError
from app.core.masking import mask_secrets
from app.core.text import escape_controls
from app.database.errors import domain_error
from app.models.stages import STAGE_TABLE, Stage
from app.storage.os_errors import is_full

_log = logging.getLogger(__name__)

_LENGTH = 2000


def tell_failure(error: BaseException, stage: Stage) -> str:
    """Return the reason; one that nobody foresaw is in the log, with all that belongs to it, and not in the text."""
    known = domain_error(error) if isinstance(error, psycopg.Error) else error
    if isinstance(known, VideoMomentsError):
        return escape_controls(mask_secrets(str(known)))[:_LENGTH]
    if isinstance(error, OSError) and is_full(error):
        return f"There is no room for the files of the stage {stage}"
    title = STAGE_TABLE[stage].title
    _log.error("%s failed", title, exc_info=error)
    return f"{title} failed for a reason that only the worker's log tells ({type(error).__name__})"


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error of several at once that decides: that the run is lost, or the first one."""
    lost = errors.subgroup(RunLost)
    first = (lost or errors).exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
