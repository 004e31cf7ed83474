"""The frontend's page before the application, and before an imported library."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from app.ai.registry import ModelRegistry
from app.core.config import Settings
from app.core.redis import make_redis
from app.database import close_db, init_db
from app.main import create_app
from tests.api.conftest import app, open_client, settings
from tests.contract.browser import Browser
from tests.importer.conftest import importer, legacy

__all__ = ["app", "importer", "legacy", "settings"]


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """A client of the application's Redis, as a server that starts leaves its database."""
    async with make_redis(settings) as redis:
        await redis.flushdb()
        await ModelRegistry(redis).seed_defaults()
        yield redis


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
