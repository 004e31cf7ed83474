"""What a process shares between its requests or runs: made, opened and closed here for server, worker and commands."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError
from tenacity import wait_fixed

from app.ai.models import RegisteredModels
from app.ai.registry import ModelRegistry
from app.core.config import Settings
from app.core.errors import RedisUnavailable
from app.core.redis import describe_redis_error, make_redis, translate_redis_error
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
from app.database import Database, OpenConnection, close_db, get_connection, init_db
from app.services.health import ServerHealth
from app.services.intake import create_request_consumer_group
from app.services.media import ExtractedAudioIndex
from app.services.queue import StageNotifier
from app.services.search_vectors import QueryEmbedder
from app.services.thumbnails import ThumbnailService
from app.services.videos import BatchedVideoReader, VideoListCache
from app.storage import Storage, open_storage

_log = logging.getLogger(__name__)
_REDIS_POLICY = RetryPolicy((RedisError, OSError), wait_fixed(1.0))


@dataclass(frozen=True, slots=True)
class Resources:
    """The settings, the clients of all servers behind this one, and the readers that requests share."""

    settings: Settings
    redis: Redis
    models: RegisteredModels
    notifier: StageNotifier
    database: Database
    storage: Storage
    health: ServerHealth
    audio: ExtractedAudioIndex
    reads: BatchedVideoReader
    video_list: VideoListCache
    thumbnails: ThumbnailService
    query_embedder: QueryEmbedder


def make_resources(settings: Settings, open_connection: OpenConnection = get_connection) -> Resources:
    redis, storage, database = make_redis(settings), open_storage(settings), Database(open_connection)
    audio, models = ExtractedAudioIndex(storage), RegisteredModels(settings, redis)
    return Resources(
        settings=settings,
        redis=redis,
        models=models,
        notifier=StageNotifier(settings),
        database=database,
        storage=storage,
        health=ServerHealth(settings, redis),
        audio=audio,
        reads=BatchedVideoReader(open_connection, settings, audio),
        video_list=VideoListCache(open_connection, settings, audio),
        thumbnails=ThumbnailService(database, storage),
        query_embedder=QueryEmbedder(database, models),
    )


@asynccontextmanager
async def open_resources(resources: Resources) -> AsyncIterator[Resources]:
    """Open all clients without waiting for any server, and close them at the end of the block."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(resources.storage.aclose)
        stack.push_async_callback(resources.redis.aclose)
        stack.push_async_callback(resources.models.aclose)
        stack.push_async_callback(resources.notifier.aclose)
        await init_db(resources.settings)
        stack.push_async_callback(close_db)
        stack.push_async_callback(resources.thumbnails.aclose)
        await stack.enter_async_context(_prepare_redis_in_background(resources.redis))
        yield resources


@asynccontextmanager
async def _prepare_redis_in_background(redis: Redis) -> AsyncIterator[None]:
    def report_first_failure(failed_call: FailedCall) -> None:
        if failed_call.number == 1:
            reason = translate_redis_error(failed_call.error) or "Redis cannot be used"
            _log.error("%s (%s)", reason, describe_redis_error(failed_call.error))

    preparation = asyncio.create_task(
        call_with_retries(partial(_prepare_redis, redis), _REDIS_POLICY, before_wait=report_first_failure)
    )
    try:
        yield
    finally:
        preparation.cancel()
        await asyncio.gather(preparation, return_exceptions=True)


async def prepare_redis_within(redis: Redis, timeout_seconds: float) -> None:
    """Seed the model registry and create the consumer group. Raises `RedisUnavailable` with the last reason."""
    reason = RedisUnavailable()

    def keep_failure_reason(failed_call: FailedCall) -> None:
        nonlocal reason
        reason = translate_redis_error(failed_call.error) or reason

    try:
        async with asyncio.timeout(timeout_seconds):
            await call_with_retries(partial(_prepare_redis, redis), _REDIS_POLICY, before_wait=keep_failure_reason)
    except TimeoutError:
        raise reason from None


async def _prepare_redis(redis: Redis) -> None:
    """Seed an empty model registry, and create the consumer group that reads requests of other programs."""
    registry = ModelRegistry(redis)
    seeded = await registry.seed_defaults()
    if seeded:
        _log.info("Seeded %d model configs", seeded)
    await registry.bind_api_keys()
    await create_request_consumer_group(redis)
