"""Searches over the connection of a test."""

from collections.abc import AsyncGenerator
from typing import Any

from app.ai.protocols import Models
from app.database import Connection, Database
from app.services.search import SearchPage, SearchRequest, search_library
from app.services.search_vectors import QueryEmbedder
from tests.pipeline.contexts import NoModels


def make_database(conn: Connection) -> Database:
    """A database whose only connection is that of a test."""

    async def open_connection() -> AsyncGenerator[Connection]:
        yield conn

    return Database(open_connection)


async def search(
    conn: Connection, text: str, models: Models | None = None, *, limit: int = 20, cursor: str = "", **request: Any
) -> SearchPage:
    database = make_database(conn)
    embedder = QueryEmbedder(database, models or NoModels())
    return await search_library(database, embedder, SearchRequest(text, **request), limit, cursor)
