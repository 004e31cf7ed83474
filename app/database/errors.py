"""Errors of PostgreSQL as domain errors, by SQLSTATE and by constraint name."""

import re
from collections.abc import Mapping

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from app.core.errors import (
    Conflict,
    DatabaseUnavailable,
    DatabaseUnreachable,
    InvalidInput,
    NotFound,
    VideoMomentsError,
)
from app.core.postgres_url import describe_database

# The error for each violated constraint: every named UNIQUE, key and CHECK that input can violate.
_VIOLATIONS: Mapping[str, VideoMomentsError] = {
    "videos_identifier_key": Conflict("A video with this id exists already"),
    "videos_duration_seconds_check": InvalidInput("duration_seconds must be a finite number, 0 or more"),
    "videos_frame_rate_check": InvalidInput("frame_rate must be a finite number, 0 or more"),
    "transcripts_video_id_key": Conflict("Transcript already exists for this video"),
    "transcripts_video_id_fkey": NotFound("Video not found"),
    "prompts_prompt_hash_key": Conflict("This prompt exists already"),
    "generation_configs_config_hash_key": Conflict("This generation config exists already"),
    "generation_configs_prompt_id_fkey": NotFound("Prompt not found"),
    "generation_configs_transcript_id_fkey": NotFound("Transcript not found"),
    "moments_identifier_key": Conflict("A moment with this id exists already"),
    "moments_video_id_fkey": NotFound("Video not found"),
    "moments_parent_id_fkey": NotFound("Parent moment not found"),
    "moments_generation_config_id_fkey": NotFound("Generation config not found"),
    "moments_times_check": InvalidInput("end_time must be greater than start_time"),
    "moments_times_finite_check": InvalidInput("start_time and end_time must be finite numbers"),
    "moments_score_check": InvalidInput("score must be from 0 to 10"),
    "clips_moment_id_key": Conflict("This moment has a clip already"),
    "clips_moment_id_fkey": NotFound("Moment not found"),
    "clips_video_id_fkey": NotFound("Video not found"),
    "clips_times_check": InvalidInput("end_time must be greater than start_time"),
    "clips_times_finite_check": InvalidInput("start_time and end_time must be finite numbers"),
    "thumbnails_owner_check": InvalidInput("A thumbnail belongs to one video or to one clip"),
    "thumbnails_video_id_fkey": NotFound("Video not found"),
    "thumbnails_clip_id_fkey": NotFound("Clip not found"),
    "idx_thumbnails_video_id": Conflict("This video has a thumbnail already"),
    "idx_thumbnails_clip_id": Conflict("This clip has a thumbnail already"),
    "pipeline_history_identifier_key": Conflict("A run with this id exists already"),
    "pipeline_history_video_id_fkey": NotFound("Video not found"),
    "pipeline_history_generation_config_id_fkey": NotFound("Generation config not found"),
}

# Classes 08 connection, 53 insufficient resources, 57 operator intervention or timeout, 58 system error, XX0 corrupted
# data; 25P03 idle in transaction; 40001 serialization failure, 40P01 deadlock, 55P03 lock timeout; 26000 and 42P05 a
# prepared statement that is missing, or exists already.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE = re.compile(r"08...|53...|57...|58...|XX00[12]|25P03|26000|40001|40P01|42P05|55P03")
_NOT_MIGRATED = re.compile(r"42P01|42703|42883|3F000")
_READ_ONLY = "25006"  # a standby, or `default_transaction_read_only`
_NO_RIGHT = "42501"
_LIMIT_EXCEEDED = "54000"  # of a tsvector, one megabyte; nothing else here has such a limit
# Errors after which a session must not be used again, though other statements may succeed: its server became a standby,
# is stopping, or has lost a prepared statement.
_LOST_SESSION = re.compile(r"08...|57P0[1-5]|25P03|25006|26000|42P05")


READ_ONLY = "The database is read-only, it takes no changes"
BUSY = "The database is busy, try again"

# Messages for clients about failed connections, without host, user and database. Such an error has no SQLSTATE, only a
# text; one that no pattern matches, for example in another language, gets the general message.
_UNREACHABLE: tuple[tuple[str, str], ...] = (
    (
        r"Connection refused|No such file|time(?:out|d out)|resolve host|route to host|unreachable"
        r"|closed the connection|reset by peer|login has been failing|connect failed|cannot connect to server",
        "The database cannot be reached, try again",
    ),
    (r"starting up|shutting down|not (?:yet |currently )?accepting", "The database is starting or stopping, try again"),
    (r"too many|connection slots|no more connections", "The database has no connection left, try again"),
    (r"database .* does not exist|no such database", "The database of DATABASE_URL does not exist"),
    (
        r"password|authentication|pg_hba|role .* does not exist|no such user|not permitted to log in",
        "The database refuses the login of DATABASE_URL",
    ),
)


def translate_database_error(error: psycopg.Error) -> VideoMomentsError | None:
    """Return one of our errors for an error of PostgreSQL; None for a defect of this code."""
    if isinstance(error, PoolTimeout | TooManyRequests):
        return DatabaseUnavailable(BUSY)
    state = error.sqlstate or ""
    if isinstance(error, PoolClosed) or _UNAVAILABLE.fullmatch(state) or _is_stale_plan(error):
        return DatabaseUnavailable("The database is not available, try again")
    if state == _READ_ONLY:
        return DatabaseUnavailable(READ_ONLY)
    if state == _NO_RIGHT:
        return DatabaseUnavailable("The role of DATABASE_URL lacks a right in the database: /health/ready says which")
    if _NOT_MIGRATED.fullmatch(state):
        return DatabaseUnavailable("The database is not migrated: run `alembic upgrade head`")
    if state.startswith("23"):
        return _VIOLATIONS.get(error.diag.constraint_name or "")
    if state.startswith("22") or (isinstance(error, psycopg.DataError) and not state):
        return InvalidInput("The request holds a value that cannot be stored")
    if state == _LIMIT_EXCEEDED:
        return InvalidInput("A text has more words than search can hold")
    if isinstance(error, psycopg.OperationalError) and not state:
        return DatabaseUnavailable("The database is not available, try again")
    return None


def is_session_lost(error: psycopg.Error) -> bool:
    return bool(_LOST_SESSION.fullmatch(error.sqlstate or "")) or _is_stale_plan(error)


def describe_database_failure(error: psycopg.Error, parameters: Mapping[str, str]) -> str | None:
    """Return one sentence for the operator with PostgreSQL's own reason; None for a defect of this code."""
    expected = translate_database_error(error)
    reason = error.diag.message_primary or str(error).partition("\n")[0]
    if error.sqlstate is None and not isinstance(error, PoolTimeout | TooManyRequests | PoolClosed):
        return str(make_connection_error(error, parameters)) if isinstance(expected, DatabaseUnavailable) else None
    if not (isinstance(expected, DatabaseUnavailable) and reason) or _NOT_MIGRATED.fullmatch(error.sqlstate or ""):
        return str(expected) if expected else None
    sentence = "PostgreSQL refuses this" if error.sqlstate == _NO_RIGHT else str(expected).partition(",")[0]
    return f"{sentence}: {reason}"


def make_connection_error(error: psycopg.Error, parameters: Mapping[str, str]) -> DatabaseUnavailable:
    text = str(error).strip() or type(error).__name__
    reasons = re.findall(r"(?:FATAL|ERROR):\s*(.+)", text) or re.findall(r"failed: (?!connection to)(.+)", text)
    reason = (error.diag.message_primary or (reasons[-1] if reasons else text.splitlines()[0])).strip().rstrip(".")
    advice = (
        "; create it with `python -m app db create`" if re.fullmatch(r'database ".*" does not exist', reason) else ""
    )
    return DatabaseUnavailable(f"Cannot connect to {describe_database(parameters)}: {reason}{advice}")


def make_unreachable_error(error: Exception) -> DatabaseUnreachable:
    text = str(error).partition("\nMultiple connection attempts")[0] or type(error).__name__
    for pattern, sentence in _UNREACHABLE:
        if re.search(pattern, text, re.IGNORECASE):
            return DatabaseUnreachable(sentence)
    return DatabaseUnreachable("No connection to the database can be opened, the log of this server has the reason")


def _is_stale_plan(error: psycopg.Error) -> bool:
    """Return whether a prepared statement is older than a migration. The message may be translated, the source not."""
    return error.sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery"
