"""Connections for requests: FastAPI dependencies, single blocks, and reads that share a statement."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable
from contextlib import aclosing, asynccontextmanager
from contextvars import Context
from typing import Generic, TypeVar

from app.core.config import Settings
from app.core.errors import DatabaseUnreachable
from app.database.connection import Connection
from app.database.pool import get_pool, make_no_connection_error

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")

OpenConnection = Callable[[], AsyncGenerator[Connection]]

# Concurrent statements. Keys that arrive meanwhile wait for the next statement.
_CONCURRENCY = 2
_KEYS_AT_MOST = 100


class BatchLoader(Generic[Key, Found]):
    """Loads rows by key, with one statement for the keys of concurrent requests.

    A single read is sent at once. A statement begins after all its calls of `get`, so it sees what was committed before
    them. An error is raised in all calls that share the statement, and in all that wait in an outage.
    """

    def __init__(
        self,
        open_connection: OpenConnection,
        load: Callable[[Connection, list[Key]], Awaitable[dict[Key, Found]]],
        settings: Settings,
    ) -> None:
        self._open_connection = open_connection
        self._load = load
        self._timeout = settings.database_pool_timeout
        self._max_waiting = settings.database_max_waiting
        self._waiting: list[tuple[Key, asyncio.Future[Found | None]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: Key) -> Found | None:
        if len(self._waiting) >= self._max_waiting:
            raise make_no_connection_error()
        answer: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if len(self._running) < _CONCURRENCY:
            task = asyncio.create_task(self._load_waiting_keys(), context=Context())  # not that of one request
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise make_no_connection_error() from None

    async def _load_waiting_keys(self) -> None:
        while self._waiting:
            batch = [each for each in self._waiting[:_KEYS_AT_MOST] if not each[1].done()]
            del self._waiting[:_KEYS_AT_MOST]
            if not batch:  # all callers were cancelled
                continue
            try:
                async with aclosing(self._open_connection()) as connections:
                    found = await self._load(await anext(connections), [*dict.fromkeys(key for key, _ in batch)])
            except BaseException as error:
                if isinstance(error, DatabaseUnreachable):  # the other keys would wait in vain
                    batch += self._waiting
                    self._waiting.clear()
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for key, answer in batch:
                    if not answer.done():
                        answer.set_result(found.get(key))


class Database:
    """Gives each `async with` block a connection of the pool, so that none is held while a file is read or sent."""

    def __init__(self, open_connection: OpenConnection) -> None:
        self._open_connection = open_connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        async with aclosing(self._open_connection()) as connections:
            yield await anext(connections)
            await anext(connections, None)  # commits, as after an endpoint that returned


async def get_db() -> AsyncGenerator[Connection]:
    """Yield a connection in a transaction, which is committed when the endpoint returns and rolled back when it raises.

    Use it with `scope="function"`, so that the commit happens before the response is sent.
    """
    async with get_pool().connection() as conn, conn.transaction():
        yield conn


async def get_connection() -> AsyncGenerator[Connection]:
    """Yield a connection in autocommit mode, where a read costs one round trip."""
    pool = get_pool()
    conn = await pool.getconn()
    try:
        yield conn
    finally:
        await pool.putconn(conn)
