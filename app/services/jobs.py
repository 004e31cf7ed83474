"""What jobs tell of themselves while they run and for a while afterwards: hashes `job:{kind}:{video}[:{moment}]`."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)

# A job that has not ended by then has died. It has failed: of whatever else it were, a client would ask for ever.
TIMEOUT_SECONDS = 840
# Whoever asks for a status asks again in 2 s.
_PATIENCE_SECONDS = 1.0


class JobKind(StrEnum):
    """The kinds of jobs, as their keys name them."""

    AUDIO = "audio_extraction"
    TRANSCRIPTION = "transcription"
    GENERATION = "moment_generation"
    REFINEMENT = "moment_refinement"
    CLIPS = "clip_extraction"


class JobState(StrEnum):
    """What a job can be in; a client asks on until it has completed or failed."""

    NOT_STARTED = "not_started"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is that makes many things; those that failed count as processed."""

    total: int
    processed: int
    failed: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Times are seconds, `started_at` since 1970."""

    state: JobState
    started_at: float | None = None
    elapsed_seconds: float | None = None
    error: str = ""
    progress: Progress | None = None


async def find_job(redis: Redis, kind: JobKind, video: str, moment: str | None = None) -> JobStatus | None:
    """Return what a job has told, or None where it has told nothing or Redis does not answer."""
    key = f"job:{kind}:{video}" if moment is None else f"job:{kind}:{video}:{moment}"
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            fields = await redis.hgetall(key)
    except (RedisError, OSError) as error:
        _log.debug("Redis does not tell of %s: %s", key, error)
        return None
    return _read_status(fields)


def _read_status(fields: Mapping[Any, Any]) -> JobStatus | None:
    try:
        state = JobState(fields.get("status", ""))
    except ValueError:
        return None
    started_at, completed_at = (_read_seconds(fields.get(name)) for name in ("started_at", "completed_at"))
    elapsed = None if started_at is None else max(0.0, (completed_at or time.time()) - started_at)
    error = fields.get("error", "")
    if state is JobState.PROCESSING and elapsed is not None and elapsed > TIMEOUT_SECONDS:
        state, error = JobState.FAILED, f"Not ended after {TIMEOUT_SECONDS} seconds"
    return JobStatus(state, started_at, elapsed, error, _read_progress(fields))


def _read_progress(fields: Mapping[Any, Any]) -> Progress | None:
    counts = [fields.get(f"{name}_moments", "") for name in ("total", "processed", "failed")]
    if not all(count.isdecimal() and len(count) < 10 for count in counts):
        return None
    return Progress(*map(int, counts))


def _read_seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None
