"""How far the jobs of a video are: what a job tells of itself, else what is stored."""

from datetime import UTC, datetime
from typing import TypeVar

from redis.asyncio import Redis

from app.core.errors import FileMissing, MomentNotFound, VideoNotFound
from app.database import Database
from app.repositories import VideoRepository
from app.repositories.status import StatusRepository
from app.services.identifiers import findable
from app.services.jobs import JobKind, JobState, JobStatus, Progress, find_job
from app.storage import Storage, find_audio_file

_NOT_STARTED = JobStatus(JobState.NOT_STARTED)

Stored = TypeVar("Stored")


class Statuses:
    """The statuses of a video's jobs. Each raises `VideoNotFound`."""

    def __init__(self, database: Database, redis: Redis, storage: Storage) -> None:
        self._database = database
        self._redis = redis
        self._storage = storage

    async def get_audio(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            _require(await VideoRepository(conn).get_by_identifier(findable(video)))
        return await find_job(self._redis, JobKind.AUDIO, video) or await self._find_audio(video)

    async def get_transcription(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require(await StatusRepository(conn).get_transcript(findable(video)))
        job = await find_job(self._redis, JobKind.TRANSCRIPTION, video)
        return job or _completed(stored.made_at, stored.processing_seconds)

    async def get_generation(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require(await StatusRepository(conn).get_generated(findable(video)))
        return await find_job(self._redis, JobKind.GENERATION, video) or _completed(stored.made_at)

    async def get_refinement(self, video: str, moment: str) -> JobStatus:
        """Raises `MomentNotFound` too."""
        async with self._database.connect() as conn:
            stored = _require(await StatusRepository(conn).get_refinement(findable(video), findable(moment)))
        if not stored.has_moment:
            raise MomentNotFound
        return await find_job(self._redis, JobKind.REFINEMENT, video, moment) or _completed(stored.made_at)

    async def get_clips(self, video: str) -> JobStatus:
        """The tables do not hold what failed: an original without a clip may have been added since."""
        async with self._database.connect() as conn:
            stored = _require(await StatusRepository(conn).get_clips(findable(video)))
        job = await find_job(self._redis, JobKind.CLIPS, video)
        return job or _completed(stored.made_at, progress=Progress(stored.originals, stored.clips, 0))

    async def _find_audio(self, video: str) -> JobStatus:
        try:
            file = await self._storage.stat(await find_audio_file(self._storage, video))
        except FileMissing:
            return _NOT_STARTED
        return JobStatus(JobState.COMPLETED, file.modified.timestamp())


def _completed(
    made_at: datetime | None, elapsed_seconds: float | None = None, progress: Progress | None = None
) -> JobStatus:
    if made_at is None:
        return _NOT_STARTED
    return JobStatus(JobState.COMPLETED, made_at.replace(tzinfo=UTC).timestamp(), elapsed_seconds, progress=progress)


def _require(stored: Stored | None) -> Stored:
    if stored is None:
        raise VideoNotFound
    return stored
