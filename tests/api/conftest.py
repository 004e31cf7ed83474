"""The application over the test's own connection, and a client for it."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from app.core.config import Settings
from app.database import Connection, get_connection, get_db
from app.main import create_app


@pytest.fixture
def app(conn: Connection) -> FastAPI:
    """The application, every endpoint of which uses the connection that the test rolls back."""
    app = create_app(Settings(log_level="error"))

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


def open_client(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="http://test")
