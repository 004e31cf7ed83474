"""A worker for as long as a block lasts, with the models of the registry."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from app.ai.models import open_models
from app.core.config import Settings
from app.database import Database
from app.models.stages import WorkKind
from app.storage import Storage
from app.worker.worker import Worker


@asynccontextmanager
async def working(
    settings: Settings,
    database: Database,
    redis: Redis,
    storage: Storage,
    kinds: Collection[WorkKind] = tuple(WorkKind),
) -> AsyncIterator[None]:
    """Execute stages in this process. What is not done at the end of the block is released within a few seconds."""
    models = open_models(settings, redis)
    worker = Worker(settings, database, redis, storage, models, kinds)
    try:
        await worker.start()
        yield
    finally:
        await worker.stop()
        await models.aclose()
