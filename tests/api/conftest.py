"""The application over the test's own connection, and a client for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import _IncludedRouter
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.redis import make_redis
from app.database import Connection, get_connection, get_db
from app.main import create_app
from tests.media.movies import make_movie


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    """Media in folders of the test's own: `media` for what the server keeps, `library` for what an import found."""
    return Settings(
        log_level="error",
        redis_url=redis_url,
        data_dir=tmp_path / "data",
        storage_url=(tmp_path / "media").as_uri(),
        library_dirs=(tmp_path / "library",),
    )


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """The folder of the application's media."""
    return tmp_path / "media"


@pytest.fixture(scope="session")
def movie(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_movie(tmp_path_factory.mktemp("movies") / "movie.mp4").read_bytes()


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
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """A client of the application's Redis, whose database is empty."""
    async with make_redis(settings) as redis:
        await redis.flushdb()
        yield redis


@pytest.fixture
async def live_client(app: FastAPI, redis: Redis) -> AsyncIterator[AsyncClient]:
    """A client for what needs Redis."""
    async with open_client(app) as client:
        yield client


@asynccontextmanager
async def open_client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    share_routes(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
        yield client
    await app.state.resources.notifier.aclose()
    await app.state.resources.redis.aclose()


def share_routes(app: FastAPI) -> None:
    """Give the application routes that are analysed once in a process: FastAPI does it anew for each application, at
    its first request, which takes longer than most tests."""
    owner = _make_owner_of_routes(has_overrides=bool(app.dependency_overrides))
    owner.dependency_overrides = app.dependency_overrides
    routers = (route for route in owner.router.routes if isinstance(route, _IncludedRouter))
    app.router.routes[:] = [
        next(routers) if isinstance(route, _IncludedRouter) else route for route in app.router.routes
    ]


@cache
def _make_owner_of_routes(*, has_overrides: bool) -> FastAPI:
    """An application for those with overrides, and one for those without, of which a test may use both at once."""
    return create_app(Settings())


def change_settings(app: FastAPI, **changes: object) -> FastAPI:
    """Return the application, with the same connection, as it is with other settings."""
    changed = create_app(app.state.resources.settings.model_copy(update=changes))
    changed.dependency_overrides = app.dependency_overrides
    return changed


def without_redis(app: FastAPI) -> FastAPI:
    return change_settings(app, redis_url=SecretStr("redis://127.0.0.1:1/0"))
