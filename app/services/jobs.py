"""The status of a video's jobs: audio, transcription, generation, refinement and clips."""

import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from redis.asyncio import Redis

from app.core.errors import FileMissing, MomentNotFound, VideoNotFound, require_found
from app.core.masking import mask_secrets
from app.database import Database
from app.models.runs import RunStatus
from app.models.stages import Stage
from app.repositories.jobs import JobRepository, JobRun
from app.services.live_runs import read_live_stage_progress
from app.services.runs import utc_to_unix_seconds
from app.storage import Storage, find_audio_file


class JobState(StrEnum):
    """State of a job. Clients poll until it is completed or failed."""

    NOT_STARTED = "not_started"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


# A cancelled job is reported as failed: clients poll until a job has completed or failed.
_STATES = {
    RunStatus.RUNNING: JobState.PROCESSING,
    RunStatus.COMPLETED: JobState.COMPLETED,
    RunStatus.PARTIAL: JobState.COMPLETED,
    RunStatus.FAILED: JobState.FAILED,
    RunStatus.CANCELLED: JobState.FAILED,
}


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Counts of a job over many items; failed items count as processed."""

    total: int
    processed: int
    failed: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Status of a job; times in seconds, `started_at` since 1970."""

    state: JobState
    started_at: float | None = None
    elapsed_seconds: float | None = None
    error: str = ""
    progress: JobProgress | None = None


_NOT_STARTED = JobStatus(JobState.NOT_STARTED)


class JobStatusReader:
    """Reads the status of a video's jobs: of the newest run, else of the stored result. Raises `VideoNotFound`."""

    def __init__(self, database: Database, redis: Redis, storage: Storage) -> None:
        self._database = database
        self._redis = redis
        self._storage = storage

    async def get_audio_status(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            job = require_found(await JobRepository(conn).get_audio_job(video), VideoNotFound)
        if job.run is not None:
            return _make_job_status(job.run, None)
        try:
            file = await self._storage.stat(await find_audio_file(self._storage, video))
        except FileMissing:
            return _NOT_STARTED
        return JobStatus(JobState.COMPLETED, file.modified.timestamp())

    async def get_transcription_status(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            job = require_found(await JobRepository(conn).get_transcript_job(video), VideoNotFound)
        return _make_job_status(job.run, job.result_created_at, elapsed_seconds=job.processing_seconds)

    async def get_generation_status(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            job = require_found(await JobRepository(conn).get_moments_job(video), VideoNotFound)
        return _make_job_status(job.run, job.result_created_at)

    async def get_refinement_status(self, video: str, moment: str) -> JobStatus:
        async with self._database.connect() as conn:
            job = require_found(await JobRepository(conn).get_refinement_job(video, moment), VideoNotFound)
        if not job.has_moment:
            raise MomentNotFound
        return _make_job_status(job.run, job.result_created_at)

    async def get_clips_status(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            job = require_found(await JobRepository(conn).get_clips_job(video), VideoNotFound)
        if job.run is None:
            return _make_job_status(None, job.result_created_at, progress=JobProgress(job.originals, job.clips, 0))
        counts = job.run.clips
        if job.run.status == RunStatus.RUNNING:
            counts = await read_live_stage_progress(self._redis, job.run.identifier, video, Stage.CLIPS) or counts
        progress = JobProgress(counts["total"], counts["processed"], counts["failed"]) if counts else None
        return _make_job_status(job.run, None, progress=progress)


def _make_job_status(
    newest_run: JobRun | None,
    result_created_at: datetime | None,
    *,
    elapsed_seconds: float | None = None,
    progress: JobProgress | None = None,
) -> JobStatus:
    """Return the status of the newest run; without one, that of the stored result, which took `elapsed_seconds`."""
    if newest_run is None:
        if result_created_at is None:
            return _NOT_STARTED
        started_at = utc_to_unix_seconds(result_created_at)
        return JobStatus(JobState.COMPLETED, started_at, elapsed_seconds, progress=progress)
    started_at = utc_to_unix_seconds(newest_run.started_at)
    ended_at = time.time() if newest_run.completed_at is None else utc_to_unix_seconds(newest_run.completed_at)
    is_cancelled = newest_run.status == RunStatus.CANCELLED
    error = mask_secrets(newest_run.error_message or "") or ("Cancelled" if is_cancelled else "")
    state = _STATES[RunStatus(newest_run.status)]
    return JobStatus(state, started_at, max(0.0, round(ended_at - started_at, 3)), error, progress)
