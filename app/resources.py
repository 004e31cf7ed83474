"""What a process shares between its requests or runs: made, opened and closed here for server, worker and commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from app.core.config import Settings
from app.core.redis import make_redis
from app.database import Database, OpenConnection, close_db, get_connection, init_db
from app.services.health import Health
from app.services.live_runs import prepare_redis
from app.services.media import ExtractedAudioIndex
from app.services.queue import StageNotifier
from app.services.thumbnails import ThumbnailService
from app.services.videos import BatchedVideoReader, VideoListCache
from app.storage import Storage, open_storage


@dataclass(frozen=True, slots=True)
class Resources:
    """The settings, the clients of all servers behind this one, and the readers that requests share."""

    settings: Settings
    redis: Redis
    notifier: StageNotifier
    database: Database
    storage: Storage
    health: Health
    audio: ExtractedAudioIndex
    reads: BatchedVideoReader
    video_list: VideoListCache
    thumbnails: ThumbnailService


def make_resources(settings: Settings, open_connection: OpenConnection = get_connection) -> Resources:
    """Return resources that are connected to nothing yet."""
    redis, storage, database = make_redis(settings), open_storage(settings), Database(open_connection)
    audio = ExtractedAudioIndex(storage)
    return Resources(
        settings=settings,
        redis=redis,
        notifier=StageNotifier(settings),
        database=database,
        storage=storage,
        health=Health(settings, redis),
        audio=audio,
        reads=BatchedVideoReader(open_connection, settings, audio),
        video_list=VideoListCache(open_connection, settings, audio),
        thumbnails=ThumbnailService(database, storage),
    )


@asynccontextmanager
async def open_resources(resources: Resources) -> AsyncIterator[Resources]:
    """Open what needs to be opened, and close everything at the end of the block, in the opposite order.

    No server is waited for: one that is away is used, and Redis prepared, as soon as it comes.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(resources.storage.aclose)
        stack.push_async_callback(resources.redis.aclose)
        stack.push_async_callback(resources.notifier.aclose)
        await init_db(resources.settings)
        stack.push_async_callback(close_db)
        stack.push_async_callback(resources.thumbnails.aclose)
        await stack.enter_async_context(_preparing_redis(resources.redis))
        yield resources


@asynccontextmanager
async def _preparing_redis(redis: Redis) -> AsyncIterator[None]:
    preparation = asyncio.create_task(prepare_redis(redis))
    try:
        yield
    finally:
        preparation.cancel()
        await asyncio.gather(preparation, return_exceptions=True)
