"""The application over the test's own connection, and a client for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.redis import close_redis, get_redis, init_redis
from app.database import Connection, get_connection, get_db
from app.main import create_app


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Media in folders of the test's own: `media` for what the server keeps, `library` for what an import found."""
    return Settings(
        log_level="error",
        data_dir=tmp_path / "data",
        storage_url=(tmp_path / "media").as_uri(),
        library_dirs=(tmp_path / "library",),
    )


@pytest.fixture
def app(conn: Connection, settings: Settings) -> FastAPI:
    """The application, every endpoint of which uses the connection that the test rolls back."""
    app = create_app(settings)

    async def give_connection() -> AsyncIterator[Connection]:
        async with conn.transaction():
            yield conn

    app.dependency_overrides[get_db] = give_connection
    app.dependency_overrides[get_connection] = give_connection
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """The application's own client, on an empty database."""
    init_redis(Settings(redis_url=redis_url))
    await get_redis().flushdb()
    yield get_redis()
    await close_redis()


@pytest.fixture
async def live_client(app: FastAPI, redis: Redis) -> AsyncIterator[AsyncClient]:
    """A client for what needs Redis."""
    async with open_client(app) as client:
        yield client


def open_client(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="http://localhost")
