"""The live status of runs in Redis: how far each is, for clients that poll it.

Everything here may be lost at any moment and is written again: PostgreSQL has the runs themselves.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from tenacity import wait_fixed

from app.ai.registry import ModelRegistry
from app.core.errors import RedisUnavailable
from app.core.masking import mask_values
from app.core.redis import describe_redis_error, translate_redis_error
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
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
# Requests of other programs, in the format of the previous backend.
REQUEST_STREAM = "pipeline:requests"
REQUEST_GROUP = "pipeline_workers"
_REDIS_POLICY = RetryPolicy((RedisError, OSError), wait_fixed(1.0))
_VIDEO_KEY_NAMES = ("active", "lock", "cancel", "history")
_RUN_PREFIX = "pipeline:run:"
_JOB_PREFIX = "job:"
# The only job whose key has the moment after the video.
_MOMENT_JOB = "moment_refinement"
_SCAN_COUNT = 1000
# A run's key ends with the time it was accepted.
_MILLISECONDS = re.compile(r"\d+", re.ASCII)


class LiveRuns:
    """The status of each run as a hash of text fields. Raises nothing: while Redis is away, writes are dropped and
    reads return nothing.

    A command fails after `answer_seconds`; `log_level` is the level of the log lines about an outage.
    """

    def __init__(self, redis: Redis, answer_seconds: float = _ANSWER_SECONDS, log_level: int = logging.WARNING) -> None:
        self._redis = redis
        self._answer_seconds = answer_seconds
        self._log_level = log_level
        self._is_unavailable = False
        self._last_refusal = float("-inf")

    async def write_status(
        self, run: str, fields: Mapping[str, str], video: str | None, *, is_waiting: bool = False
    ) -> None:
        """Write the status of an active run; under its video's key if `video` is given."""
        key = run_status_key(run) if video is None else _video_status_key(video)
        seconds = _WAITING_SECONDS if is_waiting else _STATUS_SECONDS
        await self._call_or_default(self._write_hash(key, fields, seconds), None)

    async def write_ended_status(self, run: str, video: str, fields: Mapping[str, str]) -> None:
        """Move the last status of an ended run from its video's key to its own, for a day."""
        await self._call_or_default(self._write_and_detach(run, video, fields), None)

    async def read_status(self, run: str, video: str) -> dict[str, str]:
        """Return the last status of an active or ended run; empty if there is none."""
        active: dict[str, str] = await self._call_or_default(self._redis.hgetall(_video_status_key(video)), {})
        if active.get("request_id") == run:
            return active
        return await self._call_or_default(self._redis.hgetall(run_status_key(run)), {})

    async def delete_status(self, run: str, video: str) -> None:
        await self._call_or_default(self._delete_video_status(run, video), None)

    async def _write_hash(self, key: str, fields: Mapping[str, str], seconds: int) -> None:
        async with self._redis.pipeline() as pipeline:
            pipeline.hset(key, mapping=dict(fields.items()))
            pipeline.expire(key, seconds)
            await pipeline.execute()

    async def _write_and_detach(self, run: str, video: str, fields: Mapping[str, str]) -> None:
        await self._write_hash(run_status_key(run), fields, _ENDED_SECONDS)
        await self._delete_video_status(run, video)

    async def _delete_video_status(self, run: str, video: str) -> None:
        """Delete the video's status if it belongs to `run`.

        Read and delete need not be atomic: two runs of one video exclude each other, and one that starts in between
        writes its status again.
        """
        if await self._redis.hget(_video_status_key(video), "request_id") == run:
            await self._redis.delete(_video_status_key(video))

    async def _call_or_default(self, command: Awaitable[Any], default: T) -> T | Any:
        seconds = min(self._answer_seconds, _OUTAGE_ANSWER_SECONDS) if self._is_unavailable else self._answer_seconds
        try:
            answer = await _await_within(seconds, command)
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


async def find_stage_progress(redis: Redis, run: str, video: str, stage: Stage) -> dict[str, int] | None:
    """Return the last reported counters of a stage; None also if Redis does not answer soon."""
    try:
        async with asyncio.timeout(_READER_SECONDS):
            status = await LiveRuns(redis, log_level=logging.DEBUG).read_status(run, video)
            return read_stage_progress(status, stage)
    except TimeoutError:
        return None


def run_status_fields(
    run: ClaimedRun, records: Mapping[Stage, StageRecord], current: Stage | None, progress: Mapping[str, int] | None
) -> dict[str, str]:
    """Return the status of a claimed run as text fields; `progress` counts the current stage."""
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
        fields |= _stage_fields(stage, record, counters or {})
    return fields


def read_stage_progress(fields: Mapping[str, str], stage: Stage) -> dict[str, int] | None:
    """Return the counters of a stage; None if all are zero or missing."""
    counters = STAGE_TABLE[stage].counters
    found = {counter: int(text) for counter, name in counters.items() if (text := fields.get(name, "")).isdecimal()}
    return found if any(found.values()) else None


def run_status_key(run: str) -> str:
    return f"pipeline:run:{run}"


def _video_status_key(video: str) -> str:
    return f"pipeline:{video}:active"


def _stage_fields(stage: Stage, record: StageRecord, counters: Mapping[str, int]) -> dict[str, str]:
    return {
        f"{stage}_status": record.status,
        f"{stage}_started_at": _format_time(record.started_at),
        f"{stage}_completed_at": _format_time(record.completed_at),
        f"{stage}_skipped": "true" if record.status is StageStatus.SKIPPED else "false",
        f"{stage}_skip_reason": record.skip_reason or "",
        **{name: str(counters.get(counter, 0)) for counter, name in STAGE_TABLE[stage].counters.items()},
    }


def _format_time(seconds: float | None) -> str:
    return "" if seconds is None else str(seconds)


async def _await_within(seconds: float, command: Awaitable[Any]) -> Any:
    """Await a command in its own task: redis-py sometimes continues after its caller's task is cancelled.

    Raises `TimeoutError`.
    """
    task = asyncio.ensure_future(command)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_retrieve_exception)
            await asyncio.wait({task}, timeout=_DISCONNECT_SECONDS)  # lets it close the connection it was opening
    if task.cancelled() or not task.done():
        raise TimeoutError("no answer in time")
    return task.result()


def _retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Mark the exception of an abandoned task as retrieved, or asyncio logs it."""
    if not task.cancelled():
        task.exception()


async def require_redis(redis: Redis, seconds: float) -> None:
    """Prepare Redis, with retries for `seconds`. Raises `RedisUnavailable` with the last reason."""
    reason = RedisUnavailable()

    def keep_reason(failed: FailedCall) -> None:
        nonlocal reason
        reason = translate_redis_error(failed.error) or reason

    try:
        async with asyncio.timeout(seconds):
            await call_with_retries(partial(_seed_and_create_group, redis), _REDIS_POLICY, before_wait=keep_reason)
    except TimeoutError:
        raise reason from None


async def prepare_redis(redis: Redis) -> None:
    """Seed an empty model registry and create the consumer group; retry until Redis is available."""

    def report(failed: FailedCall) -> None:
        if failed.number == 1:
            reason = translate_redis_error(failed.error) or "Redis cannot be used"
            _log.error("%s (%s)", reason, describe_redis_error(failed.error))

    await call_with_retries(partial(_seed_and_create_group, redis), _REDIS_POLICY, before_wait=report)


async def _seed_and_create_group(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    seeded = await registry.seed_defaults()
    if seeded:
        _log.info("Seeded %d model configs", seeded)
    await registry.bind_api_keys()
    await create_request_group(redis)


async def create_request_group(redis: Redis) -> None:
    try:
        await redis.xgroup_create(REQUEST_STREAM, REQUEST_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


async def delete_video_keys(redis: Redis, identifier: str, runs: list[str]) -> int:
    """Delete all keys of a video and return their number; keys of a longer identifier are kept."""
    active, _, _, history = named = [f"pipeline:{identifier}:{name}" for name in _VIDEO_KEY_NAMES]
    known = {*runs, *await redis.zrange(history, 0, -1), await redis.hget(active, "request_id")} - {None}
    keys = {*named, *map(run_status_key, known)}
    own_runs = f"{_RUN_PREFIX}pipeline:{identifier}:"
    async for key in redis.scan_iter(f"{_escape(own_runs)}*", _SCAN_COUNT):
        if _MILLISECONDS.fullmatch(key.removeprefix(own_runs)):
            keys.add(key)
    async for key in redis.scan_iter(f"{_JOB_PREFIX}*:{_escape(identifier)}*", _SCAN_COUNT):
        if _is_job_of(key, identifier):
            keys.add(key)
    return int(await redis.unlink(*keys))


def _is_job_of(key: str, identifier: str) -> bool:
    kind, _, rest = key.removeprefix(_JOB_PREFIX).partition(":")
    return (rest.rpartition(":")[0] if kind == _MOMENT_JOB else rest) == identifier


def _escape(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
