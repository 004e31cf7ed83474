"""How far the jobs of a video are: what the newest run of each tells, else what is stored."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from redis.asyncio import Redis

from app.core.errors import FileMissing, MomentNotFound, VideoNotFound
from app.core.masking import mask_secrets
from app.database import Database
from app.models.run import RunStatus
from app.models.stages import Stage
from app.repositories.jobs import JobRepository, JobRun
from app.services.identifiers import findable
from app.services.live_runs import find_stage_progress
from app.storage import Storage, find_audio_file

Stored = TypeVar("Stored")


class JobState(StrEnum):
    """What a job can be in; a client asks on until it has completed or failed."""

    NOT_STARTED = "not_started"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


# A job that was cancelled has failed: of whatever else it were, a client would ask for ever.
_STATES = {
    RunStatus.RUNNING: JobState.PROCESSING,
    RunStatus.COMPLETED: JobState.COMPLETED,
    RunStatus.PARTIAL: JobState.COMPLETED,
    RunStatus.FAILED: JobState.FAILED,
    RunStatus.CANCELLED: JobState.FAILED,
}


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


_NOT_STARTED = JobStatus(JobState.NOT_STARTED)


class Statuses:
    """The statuses of a video's jobs. Each raises `VideoNotFound`."""

    def __init__(self, database: Database, redis: Redis, storage: Storage) -> None:
        self._database = database
        self._redis = redis
        self._storage = storage

    async def get_audio(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require(await JobRepository(conn).get_audio(findable(video)))
        return _tell(stored.run) if stored.run else await self._find_audio(video)

    async def get_transcription(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require(await JobRepository(conn).get_transcript(findable(video)))
        return _tell(stored.run) if stored.run else _completed(stored.made_at, stored.processing_seconds)

    async def get_generation(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require(await JobRepository(conn).get_generated(findable(video)))
        return _tell(stored.run) if stored.run else _completed(stored.made_at)

    async def get_refinement(self, video: str, moment: str) -> JobStatus:
        """Raises `MomentNotFound` too."""
        async with self._database.connect() as conn:
            stored = _require(await JobRepository(conn).get_refinement(findable(video), findable(moment)))
        if not stored.has_moment:
            raise MomentNotFound
        return _tell(stored.run) if stored.run else _completed(stored.made_at)

    async def get_clips(self, video: str) -> JobStatus:
        """The tables do not hold what failed: an original without a clip may have been added since."""
        async with self._database.connect() as conn:
            stored = _require(await JobRepository(conn).get_clips(findable(video)))
        if stored.run is None:
            return _completed(stored.made_at, progress=Progress(stored.originals, stored.clips, 0))
        counts = stored.run.clips
        if stored.run.status == RunStatus.RUNNING:
            counts = await find_stage_progress(self._redis, stored.run.identifier, video, Stage.CLIPS) or counts
        return _tell(stored.run, Progress(counts["total"], counts["processed"], counts["failed"]) if counts else None)

    async def _find_audio(self, video: str) -> JobStatus:
        try:
            file = await self._storage.stat(await find_audio_file(self._storage, video))
        except FileMissing:
            return _NOT_STARTED
        return JobStatus(JobState.COMPLETED, file.modified.timestamp())


def _tell(run: JobRun, progress: Progress | None = None) -> JobStatus:
    started_at = _unix_seconds(run.started_at)
    ended_at = time.time() if run.completed_at is None else _unix_seconds(run.completed_at)
    error = mask_secrets(run.error_message or "") or ("Cancelled" if run.status == RunStatus.CANCELLED else "")
    return JobStatus(
        _STATES[RunStatus(run.status)], started_at, max(0.0, round(ended_at - started_at, 3)), error, progress
    )


def _completed(
    made_at: datetime | None, elapsed_seconds: float | None = None, progress: Progress | None = None
) -> JobStatus:
    if made_at is None:
        return _NOT_STARTED
    return JobStatus(JobState.COMPLETED, _unix_seconds(made_at), elapsed_seconds, progress=progress)


def _unix_seconds(time: datetime) -> float:
    return time.replace(tzinfo=UTC).timestamp()


def _require(stored: Stored | None) -> Stored:
    if stored is None:
        raise VideoNotFound
    return stored
