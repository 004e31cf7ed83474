"""A worker for as long as a block lasts, with the models of the registry."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from app.ai.models import open_models
from app.models.stages import WorkKind
from app.resources import Resources
from app.worker.worker import Worker


@asynccontextmanager
async def working(resources: Resources, kinds: Collection[WorkKind] = tuple(WorkKind)) -> AsyncIterator[None]:
    """Execute stages in this process. What is not done at the end of the block is released within a few seconds."""
    settings, redis = resources.settings, resources.redis
    models = open_models(settings, redis)
    worker = Worker(settings, resources.database, redis, resources.storage, models, kinds)
    try:
        await worker.start()
        yield
    finally:
        await worker.stop()
        await models.aclose()
