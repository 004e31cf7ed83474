"""The receiver of the messages of waiting stages: taskiq's, on the Redis streams of the kinds that a worker serves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from taskiq import Context, TaskiqDepends
from taskiq.acks import AcknowledgeType
from taskiq.exceptions import NoResultError
from taskiq.receiver import Receiver

from app.core.config import Settings
from app.core.redis import describe_redis_error
from app.models.stages import STAGE_TABLE, Stage, WorkKind
from app.pipeline.failures import unwrap_first_error
from app.services.queue import CONSUMER_GROUP, make_queue_broker
from app.worker.metrics import load_metrics_middleware

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# A receiver that has failed counts as one that receives when it has not failed again for so long.
_RECOVERY_SECONDS = 10.0
_CLEANING_SECONDS = 2.0
_STOP_SECONDS = 0.5
_MAX_DISCONNECTS, _DISCONNECT_SECONDS = 5, 0.2
_LEFT_MS = 300_000  # an entry is acknowledged as it is received: one that was not for so long is no worker's
_GONE_MS = 3_600_000

RunStage = Callable[[str, Stage], Awaitable[bool]]


class StageMessageReceiver:
    """Receives the messages of waiting stages from Redis and calls `run_stage` for each, which returns its success.

    It reconnects after Redis was unavailable or emptied.
    """

    def __init__(self, settings: Settings, kinds: Sequence[WorkKind], consumer_name: str, run_stage: RunStage) -> None:
        self._broker = make_queue_broker(settings, kinds, consumer_name)
        self._broker.is_worker_process = True
        if (metrics := load_metrics_middleware(settings)) is not None:
            self._broker.add_middlewares(metrics)
        for kind in kinds:
            self._broker.register_task(_make_taskiq_task(run_stage, kinds), task_name=kind.task_name)
        self._streams = [kind.stream_name for kind in kinds]
        self._consumer_name = consumer_name
        self._stopping = asyncio.Event()
        self._redis_lock = asyncio.Lock()  # the pool is closed after the last connection was opened
        self._failed_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_receiving(self) -> bool:
        """Whether messages can arrive: False for ten seconds after the last failure to read the queue."""
        return self._failed_at is None or asyncio.get_running_loop().time() - self._failed_at > _RECOVERY_SECONDS

    def start_receiving(self, max_parallel_stages: int) -> None:
        self._task = asyncio.create_task(self._receive_until_stopped(max_parallel_stages))

    async def stop_receiving(self) -> None:
        """Receive no more, leave the consumer groups and close the connections; stages that were begun continue."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_STOP_SECONDS)
            await self._disconnect_until_read_ends(self._task)
        await self._call_with_redis(self._leave_consumer_groups)
        await self._broker.shutdown()

    async def _disconnect_until_read_ends(self, read_task: asyncio.Task[None]) -> None:
        # asyncio.wait_for of Python 3.11 loses some cancellations; redis-py reconnects once, and then raises.
        for _ in range(_MAX_DISCONNECTS):
            if read_task.done():
                return
            with suppress(RedisError, OSError):
                await self._broker.connection_pool.disconnect()
            await asyncio.wait({read_task}, timeout=_DISCONNECT_SECONDS)

    async def remove_dead_consumers(self) -> None:
        """Acknowledge the old pending entries of dead workers' consumers, and remove those consumers."""
        await self._call_with_redis(self._remove_dead_consumers)

    async def _receive_until_stopped(self, max_parallel_stages: int) -> None:
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                await self._broker.startup()
                receiver = Receiver(
                    self._broker,
                    max_async_tasks=max_parallel_stages,
                    run_startup=False,
                    ack_type=AcknowledgeType.MANUAL,
                    wait_tasks_timeout=0.0,
                )
                await receiver.listen(self._stopping)
            except Exception as error:
                if self._stopping.is_set():
                    break
                if self._failed_at is None or loop.time() - self._failed_at > 2 * _LONGEST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                    _log_queue_failure(unwrap_first_error(error))
                self._failed_at = loop.time()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _call_with_redis(self, function: Callable[[Redis], Awaitable[None]]) -> None:
        try:
            async with (
                self._redis_lock,
                asyncio.timeout(_CLEANING_SECONDS),
                Redis(connection_pool=self._broker.connection_pool) as redis,
            ):
                await function(redis)
        except (RedisError, OSError) as error:
            _log.debug("The consumer groups stay as they are: %s", error)

    async def _leave_consumer_groups(self, redis: Redis) -> None:
        """Add entries that were delivered here and not received to their streams again, and delete this consumer."""
        for stream in self._streams:
            delivered: Any = await redis.xreadgroup(CONSUMER_GROUP, self._consumer_name, {stream: "0"})
            for entry_id, fields in delivered[0][1] if delivered else ():
                if fields:
                    await redis.xadd(stream, fields)
                await redis.xack(stream, CONSUMER_GROUP, entry_id)
            await redis.xgroup_delconsumer(stream, CONSUMER_GROUP, self._consumer_name)

    async def _remove_dead_consumers(self, redis: Redis) -> None:
        for stream in self._streams:
            left = await redis.xpending_range(stream, CONSUMER_GROUP, "-", "+", 1000, idle=_LEFT_MS)
            if left:
                await redis.xack(stream, CONSUMER_GROUP, *(entry["message_id"] for entry in left))
            for consumer in await redis.xinfo_consumers(stream, CONSUMER_GROUP):
                if consumer["pending"] == 0 and consumer["idle"] > _GONE_MS:
                    await redis.xgroup_delconsumer(stream, CONSUMER_GROUP, consumer["name"])


def _log_queue_failure(error: BaseException) -> None:
    if isinstance(error, (RedisError, OSError)):
        _log.warning("Lost the connection to the queue in Redis, reconnecting: %s", describe_redis_error(error))
    elif isinstance(error, KeyError):
        _log.warning("A stream holds an entry of another program, which is left out")
    else:
        _log.error("The queue in Redis cannot be read, trying again", exc_info=error)


def _make_taskiq_task(run_stage: RunStage, kinds: Sequence[WorkKind]) -> Callable[..., Awaitable[None]]:
    async def receive(identifier: str = "", stage: str = "", *, context: Annotated[Context, TaskiqDepends()]) -> None:
        """Acknowledge a message at once, and run its stage: a lost message is sent again while the stage waits."""
        with suppress(RedisError, OSError):
            await context.ack()
        if identifier and stage in STAGE_TABLE and STAGE_TABLE[Stage(stage)].kind in kinds:
            if not await run_stage(identifier, Stage(stage)):
                raise NoResultError  # the one error that taskiq does not log with a traceback
        else:
            _log.info("Skipped a message that names no stage of this version")

    return receive
