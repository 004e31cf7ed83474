"""What Redis must hold before the first run: the model registry and the consumer group of the request stream."""

import asyncio
import logging

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.ai.registry import ModelRegistry
from app.core.errors import RedisUnavailable
from app.core.redis import describe_redis_error, redis_unavailable

# Where other programs, as the previous backend, put what they ask for.
REQUEST_STREAM = "pipeline:requests"
REQUEST_GROUP = "pipeline_workers"

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


async def require_live_state(redis: Redis, seconds: float) -> None:
    """Prepare Redis for somebody who waits. Raises `RedisUnavailable` with its reason when the time is over."""
    reason = RedisUnavailable()
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await _prepare(redis)
                except (RedisError, OSError) as error:
                    reason = redis_unavailable(error) or reason
                await asyncio.sleep(_RETRY_SECONDS)
    except TimeoutError:
        raise reason from None


async def prepare_live_state(redis: Redis) -> None:
    """Seed the registry where it is empty and create the group; where Redis is away, as soon as it comes."""
    told = False
    while True:
        try:
            await _prepare(redis)
        except (RedisError, OSError) as error:
            if not told:
                _log.error("%s (%s)", redis_unavailable(error) or "Redis cannot be used", describe_redis_error(error))
                told = True
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _prepare(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    seeded = await registry.seed()
    if seeded:
        _log.info("Seeded %d model configs", seeded)
    await registry.bind_keys()
    await create_request_group(redis)


async def create_request_group(redis: Redis) -> None:
    """Create the stream of requests and its consumer group where they are not there."""
    try:
        await redis.xgroup_create(REQUEST_STREAM, REQUEST_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
