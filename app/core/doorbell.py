"""The stream in Redis that tells workers of runs: who accepts a run rings, and one of the workers hears it."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from taskiq import AckableMessage
from taskiq.exceptions import TaskiqError
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from app.core.config import Settings
from app.core.redis import describe_redis_error

RUN_STREAM = "pipeline:requests"
WORKER_GROUP = "pipeline_workers"
RUN_TASK = "pipeline.run"

_log = logging.getLogger(__name__)

_RING_SECONDS = 1.0
_BLOCK_MS = 2000  # less than the seconds after which a server counts as away
_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_CONNECTIONS = 20
# An entry that is cut off is no loss: workers ring again for runs that wait.
_ENTRIES_AT_MOST = 10_000
_IDLE_MS = 60_000
_CLAIMED_AT_ONCE = 10
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class Doorbell(RedisStreamBroker):
    """taskiq's broker on the stream. It listens on when Redis was away, restarted or emptied.

    `is_reading` is False while Redis refuses what `listen` asks: a run may then be enqueued and never be received.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings.redis_url.get_secret_value(),
            queue_name=RUN_STREAM,
            consumer_group_name=WORKER_GROUP,
            consumer_id="0",
            max_connection_pool_size=_CONNECTIONS,
            maxlen=_ENTRIES_AT_MOST,
            timeout=_CONNECT_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._is_listening = True
        self.is_reading = True
        self._kicker: AsyncKicker[[str], Any] = AsyncKicker(RUN_TASK, self, {})

    async def ring(self, identifier: str) -> bool:
        """Tell one worker that a run waits. False where Redis is away: workers look for such runs and take them."""
        try:
            async with asyncio.timeout(_RING_SECONDS):
                await self._kicker.kiq(identifier)
        except (TaskiqError, RedisError, OSError) as error:
            reason = describe_redis_error(error.__cause__ if isinstance(error.__cause__, RedisError) else error)
            _log.warning("No worker can be told of run %s, it waits until one looks: %s", identifier, reason)
            return False
        return True

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield entries until `stop_listening`.

        taskiq-redis' own loop ends for good at an entry that another program wrote, and looks for entries of consumers
        that died only when there is a new one.
        """
        pause, failed_at = _FIRST_PAUSE_SECONDS, 0.0
        while self._is_listening:
            try:
                await self._declare_consumer_group()
                async with aclosing(self._read()) as entries:
                    async for entry in entries:
                        yield entry
            except (RedisError, OSError) as error:
                self.is_reading = False
                if time.monotonic() - failed_at > 2 * _LONGEST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                    _log.warning("Runs cannot be read from Redis, trying again: %s", describe_redis_error(error))
                await asyncio.sleep(pause)
                pause, failed_at = min(2 * pause, _LONGEST_PAUSE_SECONDS), time.monotonic()

    def stop_listening(self) -> None:
        """End `listen` within two seconds, also where redis-py goes on although it is cancelled."""
        self._is_listening = False

    async def _read(self) -> AsyncGenerator[AckableMessage, None]:
        async with Redis(connection_pool=self.connection_pool) as redis:
            while self._is_listening:
                names = (self.consumer_group_name, self.consumer_name)
                new: Any = await redis.xreadgroup(*names, {self.queue_name: ">"}, count=1, block=_BLOCK_MS)
                left: Any = await redis.xautoclaim(self.queue_name, *names, _IDLE_MS, count=_CLAIMED_AT_ONCE)
                self.is_reading = True
                for identifier, fields in [*(new[0][1] if new else []), *left[1]]:
                    acknowledge = self._ack_generator(identifier, self.queue_name)
                    if b"data" in fields:
                        yield AckableMessage(data=fields[b"data"], ack=acknowledge)
                    else:
                        _log.info("Skipped an entry of %s that names no run", self.queue_name)
                        await acknowledge()

    async def shutdown(self) -> None:
        """Leave the group and close the connections. What was delivered and not acknowledged is rung for again."""
        if self.is_worker_process:
            try:
                async with asyncio.timeout(_RING_SECONDS), Redis(connection_pool=self.connection_pool) as redis:
                    await redis.xgroup_delconsumer(self.queue_name, self.consumer_group_name, self.consumer_name)
            except (RedisError, OSError) as error:
                _log.debug("The consumer %s stays in the group: %s", self.consumer_name, error)
        await super().shutdown()

    def _ack_generator(self, id: str, queue_name: str) -> Callable[[], Awaitable[None]]:
        acknowledge = super()._ack_generator(id, queue_name)

        async def try_to_acknowledge() -> None:
            try:
                await acknowledge()
            except (RedisError, OSError) as error:  # it comes again, and then there is nothing to do
                _log.debug("Entry %s is not acknowledged: %s", id, error)

        return try_to_acknowledge


_doorbell: Doorbell | None = None


def init_doorbell(settings: Settings) -> None:
    """Make the process's doorbell. It connects when it is first rung."""
    global _doorbell
    _doorbell = Doorbell(settings)


async def ring(identifier: str) -> None:
    """Tell one worker that a run waits. It never fails and takes a second at most: see `Doorbell.ring`."""
    if _doorbell is None:
        _log.warning("No worker can be told of run %s, it waits until one looks", identifier)
    else:
        await _doorbell.ring(identifier)


async def close_doorbell() -> None:
    """Close its connections."""
    global _doorbell
    doorbell, _doorbell = _doorbell, None
    if doorbell is not None:
        await doorbell.shutdown()
