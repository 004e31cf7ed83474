"""Connections for what also waits for something else."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from app.database.batches import OpenConnection
from app.database.connection import Connection


class Database:
    """Hands out connections, each for one `async with` block: none is held while a file is read or sent."""

    def __init__(self, open_connection: OpenConnection) -> None:
        self._open_connection = open_connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Give a connection in autocommit; a write opens a transaction on it."""
        async with aclosing(self._open_connection()) as connections:
            yield await anext(connections)
            await anext(connections, None)  # ends as after an endpoint that returned, not as after one that failed
