"""The queue of runs: enqueuing and cancelling them in PostgreSQL, and the messages that notify workers.

A message, sent by taskiq over Redis Streams, says that a run waits at a stage. It may be lost, duplicated or late:
workers claim the waiting stages in PostgreSQL, and poll for those without a message.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from psycopg.errors import UniqueViolation
from psycopg.pq import TransactionStatus
from redis.asyncio import Redis
from redis.exceptions import RedisError
from taskiq.exceptions import TaskiqError
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from app.core.config import Settings
from app.core.errors import AlreadyRunning, Conflict, NoMatchingRun, VideoNotFound
from app.core.masking import mask_secrets
from app.core.redis import describe_redis_error, make_redis_connection_options
from app.core.text import is_valid_identifier
from app.core.tracing import add_tracing_middleware, end_failed_send_span
from app.database import Connection, Database
from app.models.runs import RunRequest, StageRecord
from app.models.stages import STAGE_TABLE, STALLED_AFTER, RunType, Stage, WorkKind
from app.repositories import VideoRepository
from app.repositories.runs import RunRepository, make_run_identifier
from app.repositories.stage_queue import StageQueueRepository
from app.services.live_runs import LiveStatusStore

CONSUMER_GROUP = "videomoments"
# Notifies the workers that a run waits at a stage; never fails.
Notify = Callable[[str, Stage], Awaitable[object]]

_log = logging.getLogger(__name__)

_SEND_SECONDS = 1.0
_BLOCK_MS = 2000  # less than the timeout of a Redis command
_CONNECTIONS, _POOL_SECONDS = 20, 2.0
# Trimmed messages are no loss: a stage that still waits is notified again.
_LONGEST_STREAM = 10_000


def make_queue_broker(
    settings: Settings, kinds: Sequence[WorkKind] = tuple(WorkKind), consumer: str | None = None
) -> RedisStreamBroker:
    """Return a taskiq broker that sends to every stream and receives from those of `kinds`, one message at a time."""
    first, *others = (kind.stream_name for kind in kinds)
    broker = RedisStreamBroker(
        settings.redis_url.get_secret_value(),
        queue_name=first,
        additional_streams=dict.fromkeys(others, ">"),
        consumer_group_name=CONSUMER_GROUP,
        consumer_name=consumer,
        consumer_id="0",
        xread_block=_BLOCK_MS,
        xread_count=1,
        maxlen=_LONGEST_STREAM,
        max_connection_pool_size=_CONNECTIONS,
        timeout=_POOL_SECONDS,
        **make_redis_connection_options(),
    )
    add_tracing_middleware(broker)
    return broker


class StageNotifier:
    """Sends the messages that notify workers of waiting stages."""

    def __init__(self, settings: Settings) -> None:
        self._broker = make_queue_broker(settings)
        self._kickers: dict[WorkKind, AsyncKicker[[str, str], None]] = {
            kind: AsyncKicker(kind.task_name, self._broker, {"queue_name": kind.stream_name}) for kind in WorkKind
        }

    async def notify(self, run_identifier: str, stage: Stage) -> bool:
        """Notify a worker that a run waits at a stage. Raises nothing: returns False if Redis is unavailable."""
        try:
            with end_failed_send_span():
                async with asyncio.timeout(_SEND_SECONDS):
                    await self._kickers[STAGE_TABLE[stage].kind].kiq(run_identifier, stage.value)
        except (TaskiqError, RedisError, OSError) as error:
            reason = describe_redis_error(error.__cause__ if isinstance(error.__cause__, RedisError) else error)
            _log.warning("No message was sent for run %s, it waits until a worker polls: %s", run_identifier, reason)
            return False
        return True

    async def list_kinds_with_unread_messages(self) -> set[WorkKind]:
        unread: set[WorkKind] = set()
        try:
            async with asyncio.timeout(_SEND_SECONDS), Redis(connection_pool=self._broker.connection_pool) as redis:
                for kind in WorkKind:
                    if await _has_undelivered_messages(redis, kind.stream_name):
                        unread.add(kind)
        except (RedisError, OSError) as error:
            _log.debug("Cannot read the streams of the queue: %s", error)
        return unread

    async def aclose(self) -> None:
        await self._broker.shutdown()


async def _has_undelivered_messages(redis: Redis, stream: str) -> bool:
    if not await redis.xlen(stream):
        return False
    groups = {group["name"]: group for group in await redis.xinfo_groups(stream)}
    group = groups.get(CONSUMER_GROUP.encode())
    return group is None or bool(group.get("lag"))  # Redis reports no lag where a part was trimmed


_CONFLICTS: Mapping[RunType, str] = {
    RunType.FULL: "Pipeline already running for video '{}'",
    RunType.AUDIO: "Audio processing already in progress for this video",
    RunType.TRANSCRIPT: "Transcript generation already in progress for this video",
    RunType.MOMENTS: "Moment generation already in progress for this video",
    RunType.CLIPS: "Clip extraction already in progress for this video",
    RunType.REFINEMENT: "Moment refinement already in progress",
}


async def enqueue_run(
    conn: Connection,
    video: str,
    run_type: RunType,
    request: RunRequest,
    subject: str = "",
    stages: Mapping[Stage, StageRecord] | None = None,
    given_identifier: str | None = None,
) -> str:
    """Enqueue a run with masked prompts, in the caller's transaction if there is one, and return its identifier.

    Raises `VideoNotFound` and `AlreadyRunning`, and `Conflict` if another run has `given_identifier`.
    """
    now = datetime.now(UTC)
    milliseconds = int(now.timestamp() * 1000)
    request = mask_secrets_in_prompts(request)
    while True:
        identifier = given_identifier or make_run_identifier(video, milliseconds)
        is_in_transaction = conn.info.transaction_status is not TransactionStatus.IDLE
        try:
            async with conn.transaction() if is_in_transaction else nullcontext():
                accepted = await StageQueueRepository(conn).enqueue_run(
                    video, identifier, run_type, now.replace(tzinfo=None), request, subject, stages
                )
        except UniqueViolation:  # an ended run has the same millisecond
            if given_identifier:
                raise Conflict("A run with this id exists already") from None
            milliseconds += 1
            continue
        if accepted is None:
            raise VideoNotFound(video if run_type is RunType.FULL else None)
        if accepted.run_id is None:
            raise make_already_running_error(accepted.conflicting_type or run_type, video)
        return identifier


def mask_secrets_in_prompts(request: RunRequest) -> RunRequest:
    return replace(
        request,
        generation_prompt=mask_secrets(request.generation_prompt),
        refinement_prompt=mask_secrets(request.refinement_prompt),
    )


def make_already_running_error(conflicting_type: str, video: str) -> AlreadyRunning:
    return AlreadyRunning(_CONFLICTS[RunType(conflicting_type)].format(video))


async def cancel_active_runs(conn: Connection, video: str) -> dict[str, bool]:
    """Cancel the active runs of a video in the caller's transaction; return by run whether it has ended already.

    A run without a live worker ends at once, another one when its worker notices.
    """
    await VideoRepository(conn).lock_video(video)  # video before runs: the workers' lock order
    return {
        identifier: await StageQueueRepository(conn).request_cancel(run_id, STALLED_AFTER)
        for run_id, identifier in await RunRepository(conn).list_ids_and_identifiers_of_active_runs(video)
    }


async def cancel_runs_of_video(database: Database, redis: Redis, video: str) -> None:
    cancelled: dict[str, bool] = {}
    if is_valid_identifier(video):
        async with database.connect() as conn, conn.transaction():
            cancelled = await cancel_active_runs(conn, video)
    if not cancelled:
        raise NoMatchingRun(f"No pipeline running for video '{video}'")
    for identifier, has_ended in cancelled.items():
        if has_ended:
            await LiveStatusStore(redis).delete_active_status(identifier, video)
