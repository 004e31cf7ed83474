"""The live status of runs in Redis, and the feeds of it that clients follow.

Everything in Redis may be lost at any moment and is written again: PostgreSQL has the runs themselves.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.core.errors import TooManyFollowers
from app.core.masking import mask_values
from app.core.redis import describe_redis_error
from app.models.runs import ClaimedRun, StageRecord, StageStatus, convert_stage_record_for_clients
from app.models.stages import STAGE_TABLE, Stage

T = TypeVar("T")
_log = logging.getLogger(__name__)
_ANSWER_SECONDS = 1.0
_OUTAGE_ANSWER_SECONDS = 0.5  # after a command that was not answered
_READER_SECONDS = 0.5  # of a client that polls
_DISCONNECT_SECONDS = 0.1
# A status that no worker refreshes expires; that of a run between two workers is kept for longer.
_STATUS_SECONDS = 60
_WAITING_SECONDS = 86_400
_ENDED_SECONDS = 86_400
# A server that refuses commands counts as recovered after this long without a refusal.
_REFUSAL_SECONDS = 10.0
_PENDING = StageRecord(StageStatus.PENDING)
_MAX_FOLLOWERS = 1000
_POLL_SECONDS = 1.0
# Proxies close idle connections after a minute, some after half a minute.
_KEEP_ALIVE_SECONDS = 15.0
_VIDEO_KEY_NAMES = ("active", "lock", "cancel", "history")
_RUN_PREFIX = "pipeline:run:"
_JOB_PREFIX = "job:"
# The only job whose key has the moment after the video.
_MOMENT_JOB = "moment_refinement"
_SCAN_COUNT = 1000
# A run's key ends with the time it was accepted.
_MILLISECONDS = re.compile(r"\d+", re.ASCII)


class LiveStatusStore:
    """Keeps the live status of each run in Redis, as a hash of text fields.

    Raises nothing: while Redis is away, writes are dropped and reads return nothing. A command fails after
    `answer_seconds`; `log_level` is the level of the log lines about an outage.
    """

    def __init__(self, redis: Redis, answer_seconds: float = _ANSWER_SECONDS, log_level: int = logging.WARNING) -> None:
        self._redis = redis
        self._answer_seconds = answer_seconds
        self._log_level = log_level
        self._is_unavailable = False
        self._last_refusal = float("-inf")

    async def write_active_status(
        self, run: str, fields: Mapping[str, str], video: str | None, *, is_waiting: bool = False
    ) -> None:
        """Write the status of a run that has not ended; under its video's key if `video` is given."""
        key = _make_run_status_key(run) if video is None else _make_video_status_key(video)
        seconds = _WAITING_SECONDS if is_waiting else _STATUS_SECONDS
        await self._await_command_or_default(self._write_expiring_hash(key, fields, seconds), None)

    async def write_ended_status(self, run: str, video: str, fields: Mapping[str, str]) -> None:
        """Move the last status of an ended run from its video's key to its own, for a day."""
        await self._await_command_or_default(self._move_status_to_ended_run(run, video, fields), None)

    async def read_status(self, run: str, video: str) -> dict[str, str]:
        active: dict[str, str] = await self._await_command_or_default(
            self._redis.hgetall(_make_video_status_key(video)), {}
        )
        if active.get("request_id") == run:
            return active
        return await self._await_command_or_default(self._redis.hgetall(_make_run_status_key(run)), {})

    async def delete_active_status(self, run: str, video: str) -> None:
        await self._await_command_or_default(self._delete_active_status_if_of_run(run, video), None)

    async def _write_expiring_hash(self, key: str, fields: Mapping[str, str], seconds: int) -> None:
        async with self._redis.pipeline() as pipeline:
            pipeline.hset(key, mapping=dict(fields.items()))
            pipeline.expire(key, seconds)
            await pipeline.execute()

    async def _move_status_to_ended_run(self, run: str, video: str, fields: Mapping[str, str]) -> None:
        await self._write_expiring_hash(_make_run_status_key(run), fields, _ENDED_SECONDS)
        await self._delete_active_status_if_of_run(run, video)

    async def _delete_active_status_if_of_run(self, run: str, video: str) -> None:
        # Not atomic: two runs of one video exclude each other, and one that starts meanwhile writes its status again.
        if await self._redis.hget(_make_video_status_key(video), "request_id") == run:
            await self._redis.delete(_make_video_status_key(video))

    async def _await_command_or_default(self, command: Awaitable[Any], default: T) -> T | Any:
        """Await a Redis command; return `default` if Redis is unavailable, and log the begin and end of an outage."""
        seconds = min(self._answer_seconds, _OUTAGE_ANSWER_SECONDS) if self._is_unavailable else self._answer_seconds
        try:
            answer = await _await_with_timeout(command, seconds)
        except (RedisError, OSError) as error:
            if isinstance(error, ResponseError):  # the server may answer the next command and refuse this one again
                self._last_refusal = time.monotonic()
            if not self._is_unavailable:
                self._is_unavailable = True
                _log.log(
                    self._log_level, "Redis is unavailable, runs continue without it: %s", describe_redis_error(error)
                )
            return default
        if self._is_unavailable and time.monotonic() >= self._last_refusal + _REFUSAL_SECONDS:
            self._is_unavailable = False
            _log.log(self._log_level, "Redis is available again")
        return answer


async def read_live_stage_progress(redis: Redis, run: str, video: str, stage: Stage) -> dict[str, int] | None:
    """Return the last counters of a run's stage in Redis; None if there are none or Redis does not answer soon."""
    try:
        async with asyncio.timeout(_READER_SECONDS):
            status = await LiveStatusStore(redis, log_level=logging.DEBUG).read_status(run, video)
            return parse_stage_progress(status, stage)
    except TimeoutError:
        return None


def make_live_status_fields(
    run: ClaimedRun, records: Mapping[Stage, StageRecord], current: Stage | None, progress: Mapping[str, int] | None
) -> dict[str, str]:
    """Return the status of a claimed run as text fields for Redis; `progress` are counters of the current stage."""
    fields = {
        "request_id": run.identifier,
        "video_id": run.video,
        "status": "processing",
        "generation_model": run.request.generation_model,
        "refinement_model": run.request.refinement_model,
        "config": json.dumps(mask_values(asdict(run.request))),
        "started_at": str(run.started_at),
        "completed_at": "",
        "current_stage": current or "",
        "error_stage": "",
        "error_message": "",
    }
    for stage in STAGE_TABLE:
        record = convert_stage_record_for_clients(stage, records.get(stage, _PENDING))
        counters = progress if stage is current and record.status is StageStatus.PROCESSING else record.progress
        fields |= _make_live_status_fields_of_stage(stage, record, counters or {})
    return fields


def parse_stage_progress(fields: Mapping[str, str], stage: Stage) -> dict[str, int] | None:
    """Return a stage's counters from the fields of a live status; None if all are zero or missing."""
    counters = STAGE_TABLE[stage].counters
    found = {counter: int(text) for counter, name in counters.items() if (text := fields.get(name, "")).isdecimal()}
    return found if any(found.values()) else None


def _make_run_status_key(run_identifier: str) -> str:
    return f"{_RUN_PREFIX}{run_identifier}"


def _make_video_status_key(video_identifier: str) -> str:
    return f"pipeline:{video_identifier}:active"


def _make_live_status_fields_of_stage(stage: Stage, record: StageRecord, counters: Mapping[str, int]) -> dict[str, str]:
    return {
        f"{stage}_status": record.status,
        f"{stage}_started_at": _format_unix_time(record.started_at),
        f"{stage}_completed_at": _format_unix_time(record.completed_at),
        f"{stage}_skipped": "true" if record.status is StageStatus.SKIPPED else "false",
        f"{stage}_skip_reason": record.skip_reason or "",
        **{name: str(counters.get(counter, 0)) for counter, name in STAGE_TABLE[stage].counters.items()},
    }


def _format_unix_time(seconds: float | None) -> str:
    return "" if seconds is None else str(seconds)


async def _await_with_timeout(command: Awaitable[Any], timeout_seconds: float) -> Any:
    task = asyncio.ensure_future(command)
    try:
        await asyncio.wait({task}, timeout=timeout_seconds)
    finally:
        if not task.done():
            task.cancel()
            # An exception that nobody retrieves would be logged.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({task}, timeout=_DISCONNECT_SECONDS)  # lets it close the connection it was opening
    if task.cancelled() or not task.done():
        raise TimeoutError("no answer in time")
    return task.result()


async def delete_and_count_redis_keys_of_video(redis: Redis, identifier: str, run_identifiers: list[str]) -> int:
    active, _, _, history = named = [f"pipeline:{identifier}:{name}" for name in _VIDEO_KEY_NAMES]
    known = {*run_identifiers, *await redis.zrange(history, 0, -1), await redis.hget(active, "request_id")} - {None}
    keys = {*named, *map(_make_run_status_key, known)}
    own_runs = f"{_RUN_PREFIX}pipeline:{identifier}:"
    async for key in redis.scan_iter(f"{_escape_glob(own_runs)}*", _SCAN_COUNT):
        if _MILLISECONDS.fullmatch(key.removeprefix(own_runs)):
            keys.add(key)
    async for key in redis.scan_iter(f"{_JOB_PREFIX}*:{_escape_glob(identifier)}*", _SCAN_COUNT):
        if _is_job_key_of_video(key, identifier):
            keys.add(key)
    return int(await redis.unlink(*keys))


def _is_job_key_of_video(key: str, identifier: str) -> bool:
    kind, _, rest = key.removeprefix(_JOB_PREFIX).partition(":")
    return (rest.rpartition(":")[0] if kind == _MOMENT_JOB else rest) == identifier


def _escape_glob(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


@dataclass(frozen=True, slots=True)
class SerializedStatus:
    """The status of a run as bytes for clients; its id changes with the bytes, and no status follows a final one."""

    id: str
    data: bytes
    is_final: bool


class _RunStatusFeed:
    """The latest status of one video's run, and the task that polls it while there are followers."""

    def __init__(self) -> None:
        self.latest: SerializedStatus | None = None
        self.changed = asyncio.Event()
        self.has_ended = False
        self.followers = 0
        self.task: asyncio.Task[None] | None = None

    def wake_followers(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class RunStatusFeeds:
    """Feeds of run statuses by video; a status is read once a second for all its followers, if there are any."""

    def __init__(
        self, read_status: Callable[[str], Awaitable[SerializedStatus]], is_stopping: Callable[[], bool]
    ) -> None:
        self._read_status = read_status
        self._is_stopping = is_stopping
        self._feeds: dict[str, _RunStatusFeed] = {}

    async def read_status_for_new_follower(self, video: str) -> SerializedStatus:
        """Return the present status of a video's run. Raises `TooManyFollowers`."""
        if sum(feed.followers for feed in self._feeds.values()) >= _MAX_FOLLOWERS:
            raise TooManyFollowers
        return await self._read_status(video)

    async def follow_status(self, video: str, known: SerializedStatus) -> AsyncGenerator[SerializedStatus | None]:
        """Yield the latest status after each change, until a final one or the server stops; None as a keep-alive."""
        feed = self._join_or_start_feed(video)
        try:
            while not known.is_final:
                changed = feed.changed
                if feed.latest is not None and feed.latest.id != known.id:
                    known = feed.latest
                    yield known
                elif feed.has_ended:
                    return
                else:
                    try:
                        async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                            await changed.wait()
                    except TimeoutError:
                        yield None
        finally:
            self._leave_or_stop_feed(video, feed)

    def _join_or_start_feed(self, video: str) -> _RunStatusFeed:
        feed = self._feeds.get(video)
        if feed is None:
            feed = self._feeds[video] = _RunStatusFeed()
            # Shared by requests, so the context of none.
            feed.task = asyncio.create_task(self._poll_status_until_final(video, feed), context=Context())
        feed.followers += 1
        return feed

    def _leave_or_stop_feed(self, video: str, feed: _RunStatusFeed) -> None:
        feed.followers -= 1
        if not feed.followers and feed.task is not None:
            feed.task.cancel()
            self._remove_ended_feed(video, feed)

    def _remove_ended_feed(self, video: str, feed: _RunStatusFeed) -> None:
        if self._feeds.get(video) is feed:
            del self._feeds[video]

    async def _poll_status_until_final(self, video: str, feed: _RunStatusFeed) -> None:
        try:
            while not self._is_stopping():
                await asyncio.sleep(_POLL_SECONDS)
                try:
                    status = await self._read_status(video)
                except Exception as error:  # followers wait until the next successful read
                    _log.warning("Cannot read the state of %r: %s", video, error)
                    continue
                if feed.latest is None or status.id != feed.latest.id:
                    feed.latest = status
                    feed.wake_followers()
                if status.is_final:
                    return
        finally:
            feed.has_ended = True
            self._remove_ended_feed(video, feed)
            feed.wake_followers()
