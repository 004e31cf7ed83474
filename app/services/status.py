"""Status of a video's jobs, and the feed of a status that many clients follow."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from redis.asyncio import Redis

from app.core.errors import FileMissing, MomentNotFound, TooManyFollowers, VideoNotFound
from app.core.masking import mask_secrets
from app.database import Database
from app.models.runs import RunStatus
from app.models.stages import Stage
from app.repositories.jobs import JobRepository, JobRun
from app.services.live_runs import find_stage_progress
from app.services.runs import unix_seconds
from app.storage import Storage, find_audio_file

StoredT = TypeVar("StoredT")
_log = logging.getLogger(__name__)
MAX_FOLLOWERS = 1000
POLL_SECONDS = 1.0
# Proxies close idle connections after a minute, some after half a minute.
KEEP_ALIVE_SECONDS = 15.0


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
    """Reads the status of a video's jobs: from the newest run, else from stored results. Raises `VideoNotFound`."""

    def __init__(self, database: Database, redis: Redis, storage: Storage) -> None:
        self._database = database
        self._redis = redis
        self._storage = storage

    async def get_audio(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require_video(await JobRepository(conn).get_audio_job(video))
        return _run_job_status(stored.run) if stored.run else await self._find_audio_status(video)

    async def get_transcription(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require_video(await JobRepository(conn).get_transcript_job(video))
        return (
            _run_job_status(stored.run)
            if stored.run
            else _stored_job_status(stored.result_created_at, stored.processing_seconds)
        )

    async def get_generation(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require_video(await JobRepository(conn).get_moments_job(video))
        return _run_job_status(stored.run) if stored.run else _stored_job_status(stored.result_created_at)

    async def get_refinement(self, video: str, moment: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require_video(await JobRepository(conn).get_refinement_job(video, moment))
        if not stored.has_moment:
            raise MomentNotFound
        return _run_job_status(stored.run) if stored.run else _stored_job_status(stored.result_created_at)

    async def get_clips(self, video: str) -> JobStatus:
        async with self._database.connect() as conn:
            stored = _require_video(await JobRepository(conn).get_clips_job(video))
        if stored.run is None:
            return _stored_job_status(stored.result_created_at, progress=JobProgress(stored.originals, stored.clips, 0))
        counts = stored.run.clips
        if stored.run.status == RunStatus.RUNNING:
            counts = await find_stage_progress(self._redis, stored.run.identifier, video, Stage.CLIPS) or counts
        return _run_job_status(
            stored.run, JobProgress(counts["total"], counts["processed"], counts["failed"]) if counts else None
        )

    async def _find_audio_status(self, video: str) -> JobStatus:
        try:
            file = await self._storage.stat(await find_audio_file(self._storage, video))
        except FileMissing:
            return _NOT_STARTED
        return JobStatus(JobState.COMPLETED, file.modified.timestamp())


def _run_job_status(run: JobRun, progress: JobProgress | None = None) -> JobStatus:
    started_at = unix_seconds(run.started_at)
    ended_at = time.time() if run.completed_at is None else unix_seconds(run.completed_at)
    error = mask_secrets(run.error_message or "") or ("Cancelled" if run.status == RunStatus.CANCELLED else "")
    return JobStatus(
        _STATES[RunStatus(run.status)], started_at, max(0.0, round(ended_at - started_at, 3)), error, progress
    )


def _stored_job_status(
    created_at: datetime | None, elapsed_seconds: float | None = None, progress: JobProgress | None = None
) -> JobStatus:
    if created_at is None:
        return _NOT_STARTED
    return JobStatus(JobState.COMPLETED, unix_seconds(created_at), elapsed_seconds, progress=progress)


def _require_video(stored: StoredT | None) -> StoredT:
    if stored is None:
        raise VideoNotFound
    return stored


@dataclass(frozen=True, slots=True)
class FeedState:
    """A serialised state; after a final one no other follows."""

    id: str
    data: bytes
    is_final: bool


class _Feed:
    def __init__(self) -> None:
        self.latest: FeedState | None = None
        self.changed = asyncio.Event()
        self.has_ended = False
        self.followers = 0
        self.task: asyncio.Task[None] | None = None

    def publish(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class StatusFeeds:
    """Feeds of states by key; a state is read once for all its followers, and only while there are any."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[FeedState]],
        is_stopping: Callable[[], bool],
        *,
        max_followers: int = MAX_FOLLOWERS,
        poll_seconds: float = POLL_SECONDS,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self._read = read
        self._is_stopping = is_stopping
        self._max_followers = max_followers
        self._poll_seconds = poll_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._feeds: dict[str, _Feed] = {}

    async def get_state(self, key: str) -> FeedState:
        """Return the current state. Raises `TooManyFollowers` if the limit of followers is reached."""
        if sum(feed.followers for feed in self._feeds.values()) >= self._max_followers:
            raise TooManyFollowers
        return await self._read(key)

    async def follow(self, key: str, known: FeedState) -> AsyncGenerator[FeedState | None]:
        """Yield each state after the known one, and None as a keep-alive.

        Ends after the final state, and when the server stops.
        """
        feed = self._subscribe(key)
        try:
            while not known.is_final:
                changed = feed.changed
                if feed.latest is not None and feed.latest.id != known.id:
                    known = feed.latest
                    yield known
                elif feed.has_ended:
                    return
                elif not await self._wait_for_change(changed):
                    yield None
        finally:
            self._unsubscribe(key, feed)

    async def _wait_for_change(self, changed: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._keep_alive_seconds):
                return await changed.wait()
        except TimeoutError:
            return False

    def _subscribe(self, key: str) -> _Feed:
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed()
            feed.task = asyncio.create_task(
                self._poll(key, feed), context=Context()
            )  # shared by requests, so it belongs to none
        feed.followers += 1
        return feed

    def _unsubscribe(self, key: str, feed: _Feed) -> None:
        feed.followers -= 1
        if not feed.followers and feed.task is not None:
            feed.task.cancel()
            self._remove(key, feed)

    def _remove(self, key: str, feed: _Feed) -> None:
        if self._feeds.get(key) is feed:
            del self._feeds[key]

    async def _poll(self, key: str, feed: _Feed) -> None:
        try:
            while not self._is_stopping():
                await asyncio.sleep(self._poll_seconds)
                try:
                    state = await self._read(key)
                except Exception as error:  # followers wait until the next successful read
                    _log.warning("Cannot read the state of %r: %s", key, error)
                    continue
                if feed.latest is None or state.id != feed.latest.id:
                    feed.latest = state
                    feed.publish()
                if state.is_final:
                    return
        finally:
            feed.has_ended = True
            self._remove(key, feed)
            feed.publish()
