"""The message queue between the server and the workers: taskiq's broker on Redis Streams.

A message says that a run waits at a stage. It may be lost, duplicated or late: waiting stages are rows in PostgreSQL,
where workers claim them, and which they poll for stages without a message.
"""

import asyncio
import logging
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError
from taskiq.exceptions import TaskiqError
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from app.core.config import Settings
from app.core.redis import describe_redis_error, make_redis_connection_options
from app.core.tracing import add_tracing_middleware, end_failed_send_span
from app.models.stages import STAGE_TABLE, Stage, WorkKind

CONSUMER_GROUP = "videomoments"

_log = logging.getLogger(__name__)

_SEND_SECONDS = 1.0
_BLOCK_MS = 2000  # less than the timeout of a Redis command
_CONNECTIONS, _POOL_SECONDS = 20, 2.0
# Trimmed messages are no loss: a stage that still waits is notified again.
_LONGEST_STREAM = 10_000


def make_broker(
    settings: Settings, kinds: Sequence[WorkKind] = tuple(WorkKind), consumer: str | None = None
) -> RedisStreamBroker:
    """Return a broker that sends to every stream and receives from the streams of `kinds` (at least one).

    It reads one message at a time, so that none waits in a worker without capacity.
    """
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
    """Sends the queue messages of a process."""

    def __init__(self, settings: Settings) -> None:
        self._broker = make_broker(settings)
        self._kickers: dict[WorkKind, AsyncKicker[[str, str], None]] = {
            kind: AsyncKicker(kind.task_name, self._broker, {"queue_name": kind.stream_name}) for kind in WorkKind
        }

    async def notify(self, identifier: str, stage: Stage) -> bool:
        """Notify a worker that a run waits at a stage; return False if Redis is unavailable.

        Never raises, and takes at most a second.
        """
        try:
            with end_failed_send_span():
                async with asyncio.timeout(_SEND_SECONDS):
                    await self._kickers[STAGE_TABLE[stage].kind].kiq(identifier, stage.value)
        except (TaskiqError, RedisError, OSError) as error:
            reason = describe_redis_error(error.__cause__ if isinstance(error.__cause__, RedisError) else error)
            _log.warning("No message was sent for run %s, it waits until a worker polls: %s", identifier, reason)
            return False
        return True

    async def list_unread(self) -> set[WorkKind]:
        """Return the kinds of work with undelivered messages; none while Redis is unavailable."""
        unread: set[WorkKind] = set()
        try:
            async with asyncio.timeout(_SEND_SECONDS), Redis(connection_pool=self._broker.connection_pool) as redis:
                for kind in WorkKind:
                    if await _has_undelivered(redis, kind.stream_name):
                        unread.add(kind)
        except (RedisError, OSError) as error:
            _log.debug("Cannot read the streams of the queue: %s", error)
        return unread

    async def aclose(self) -> None:
        await self._broker.shutdown()


async def _has_undelivered(redis: Redis, stream: str) -> bool:
    """Without a group nothing of the stream was read; Redis does not count what is unread where a part was trimmed."""
    if not await redis.xlen(stream):
        return False
    groups = {group["name"]: group for group in await redis.xinfo_groups(stream)}
    group = groups.get(CONSUMER_GROUP.encode())
    return group is None or bool(group.get("lag"))
