"""The frontend's page before the application, and before an imported library."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from app.ai.registry import ModelRegistry
from app.core.config import Settings
from app.core.redis import close_redis, get_redis, init_redis
from app.database import close_db, init_db
from app.main import create_app
from tests.api.conftest import app, open_client, settings
from tests.contract.browser import Browser
from tests.importer.conftest import importer, legacy

__all__ = ["app", "importer", "legacy", "settings"]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """The application's own client, on a database as a server that starts leaves it."""
    init_redis(Settings(redis_url=redis_url))
    await get_redis().flushdb()
    await ModelRegistry(get_redis()).seed_defaults()
    yield get_redis()
    await close_redis()


@pytest.fixture
async def browser(app: FastAPI, redis: Redis) -> AsyncIterator[Browser]:
    async with open_client(app) as client:
        yield Browser(client)


@asynccontextmanager
async def browsing(settings: Settings) -> AsyncIterator[Browser]:
    """Look at a database of the test's own, over a pool of connections."""
    await init_db(settings)
    try:
        async with open_client(create_app(settings)) as client:
            yield Browser(client)
    finally:
        await close_db()
