"""The connection pool of the process, and how it waits through an outage of PostgreSQL."""

import asyncio
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from app.core.config import Settings, get_settings
from app.core.errors import DatabaseUnavailable, DatabaseUnreachable
from app.database.connection import check_encoding, configure_connection, connection_options
from app.database.errors import BUSY, connection_error, is_session_lost, unreachable

_log = logging.getLogger(__name__)

# How long a request waits for a connection in an outage: longer than the second between two attempts to open one, so
# that a request that comes when PostgreSQL is back is served.
_PATIENCE_SECONDS = 1.5


class Outage:
    """What the latest attempt to open a connection failed with, and the requests that wait for one meanwhile.

    `has_connections` returns whether the pool has any, in use or idle: then a request waits for one of them, as for a
    busy pool.
    """

    def __init__(self, settings: Settings, has_connections: Callable[[], bool]) -> None:
        self._parameters = settings.database_parameters
        self._has_connections = has_connections
        self._error: Exception | None = None
        self._is_reported = False
        self._waiting: dict[asyncio.Timeout, float] = {}

    @property
    def reason(self) -> DatabaseUnreachable | None:
        """Return one sentence that a user may read, or None where the latest attempt succeeded."""
        return unreachable(self._error) if self._error is not None else None

    def begin(self, error: Exception) -> None:
        """Note an attempt that failed: requests that no connection can serve wait no longer than their patience."""
        self._error = error
        is_hopeless = not self._has_connections()
        for limit, asked_at in self._waiting.items():
            if not limit.expired():
                limit.reschedule(asked_at + _PATIENCE_SECONDS if is_hopeless else None)

    def end(self) -> None:
        """Note an attempt that succeeded."""
        self._error = None
        for limit in self._waiting:
            if not limit.expired():
                limit.reschedule(None)
        if self._is_reported:
            self._is_reported = False
            _log.warning("PostgreSQL takes connections again")

    def report(self) -> None:
        """Log why no connection can be opened, once in an outage."""
        if isinstance(self._error, psycopg.Error) and not self._is_reported:
            self._is_reported = True
            _log.error("%s; trying again every second", connection_error(self._error, self._parameters))

    @asynccontextmanager
    async def limit_wait(self) -> AsyncIterator[None]:
        """Cut the block where it waits for a connection that no attempt opens. Raises `DatabaseUnreachable`."""
        asked_at = asyncio.get_running_loop().time()
        is_hopeless = self._error is not None and not self._has_connections()
        try:
            async with asyncio.timeout_at(asked_at + _PATIENCE_SECONDS if is_hopeless else None) as limit:
                self._waiting[limit] = asked_at
                try:
                    yield
                finally:
                    del self._waiting[limit]
        except TimeoutError:
            raise self.reason or DatabaseUnavailable(BUSY) from None  # busy: an attempt has just succeeded


# psycopg doubles the pause between two attempts: 1, 2, 4 … 256 s. Given up after this long and begun anew, attempts
# stay a second apart for the whole of an outage.
_RECONNECT_SECONDS = 2.0
# Overflow connections are closed one by one, each after it was not needed for this long.
_OVERFLOW_IDLE_SECONDS = 15.0
# No connection stays with a server for longer, whatever else points to another one.
_LIFETIME_SECONDS = 600.0
# Between two checks of the idle connections, and how long a request waits for one.
_CHECK_PAUSE_SECONDS = 1.0
_CHECK_SECONDS = 0.5

RV = TypeVar("RV")


class PooledConnection(AsyncConnection[TupleRow]):
    """A connection that knows when it is of no more use, though it may still answer: see `is_session_lost`."""

    is_unusable = False

    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Open a connection of the pool; `options` has its `settings`, and the `outage` that a failure is noted in."""
        settings: Settings = options.pop("settings")
        outage: Outage = options.pop("outage")
        try:
            conn = await super().connect(conninfo, **connection_options(settings), **options)
            try:
                with _disconnect_after(conn, settings.database_connect_timeout):
                    await configure_connection(conn, settings)
            except BaseException:
                await conn.close()
                raise
        except Exception as error:
            outage.begin(error)
            raise
        outage.end()
        return conn

    async def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        try:
            return await super().wait(gen, *args, **options)
        except psycopg.Error as error:
            self.is_unusable = self.is_unusable or is_session_lost(error)
            raise


class Pool(AsyncConnectionPool[PooledConnection]):
    """psycopg's pool, which loses no connection when a request is cancelled while it gives it back.

    After a failover the old connections go on to a server that takes no changes. One that is given back condemned is
    closed, and those that lie idle are checked.
    """

    _condemned_at = _checked_at = float("-inf")
    _checking: asyncio.Task[None] | None = None
    _in_use = 0

    def __init__(self, settings: Settings) -> None:
        self._outage = Outage(settings, self._has_connections)
        super().__init__(
            connection_class=PooledConnection,
            name="videomoments",
            kwargs={"settings": settings, "outage": self._outage},
            check=_check,
            min_size=settings.database_pool_size,
            max_size=settings.database_pool_size + settings.database_max_overflow,
            timeout=settings.database_pool_timeout,
            max_waiting=settings.database_max_waiting,
            max_idle=_OVERFLOW_IDLE_SECONDS,
            max_lifetime=_LIFETIME_SECONDS,
            reconnect_timeout=_RECONNECT_SECONDS,
            reconnect_failed=self._retry_connecting,
            open=False,
        )

    async def getconn(self, timeout: float | None = None) -> PooledConnection:  # noqa: ASYNC109  as psycopg has it
        """Raises `DatabaseUnreachable` too, and `DatabaseUnavailable` for a database of another encoding."""
        if len(self._waiting) >= self.max_waiting:  # psycopg counts those, too, that wait no longer
            self._waiting = deque(client for client in self._waiting if client.error is None)
        try:
            async with self._outage.limit_wait():
                conn = await super().getconn(timeout)
        except (PoolTimeout, TooManyRequests):
            if outage := self.find_outage():
                raise outage from None
            raise
        self._in_use += 1
        try:
            check_encoding(conn)
        except DatabaseUnavailable:
            await self.putconn(conn)
            raise
        return conn

    async def putconn(self, conn: PooledConnection) -> None:
        self._in_use -= 1
        if not conn.is_unusable:
            return await _shielded(super().putconn(conn))
        self._condemned_at = now = time.monotonic()
        await conn.close()
        await _shielded(super().putconn(conn))
        checking = self._checking
        if checking is None or checking.done():
            checking = self._checking = _begin(self._check_idle())
        if now - self._checked_at > _CHECK_PAUSE_SECONDS:  # the next request finds other connections
            await asyncio.wait({checking}, timeout=_CHECK_SECONDS)
        return None

    async def _check_idle(self) -> None:
        """Check the idle connections after each that was condemned, and not all the time where all of them are."""
        while self._checked_at < self._condemned_at:
            await asyncio.sleep(self._checked_at + _CHECK_PAUSE_SECONDS - time.monotonic())
            if self.closed:
                return
            self._checked_at = time.monotonic()
            await self.check()

    def find_outage(self) -> DatabaseUnavailable | None:
        """Return why no other connection can be opened; None where the latest attempt succeeded, or all are in use."""
        return self._outage.reason if self._in_use < self.max_size else None

    def _has_connections(self) -> bool:
        return self._in_use > 0 or self.get_stats()["pool_available"] > 0

    async def _retry_connecting(self, pool: AsyncConnectionPool[Any]) -> None:
        """Begin anew after an attempt to open a connection was given up."""
        self._outage.report()
        stats = self.get_stats()
        if stats["requests_waiting"] or stats["pool_size"] < stats["pool_min"]:
            await self.check()  # opens a connection where there are too few

    @staticmethod
    async def check_connection(conn: AsyncConnection[Any]) -> None:
        """Raise `psycopg.Error` for a connection that does not answer, or takes no changes."""
        if await anext(await conn.execute("SELECT current_setting('transaction_read_only')")) == ("on",):
            raise psycopg.OperationalError("The session is read-only")


_pool: Pool | None = None
_unfinished: set[asyncio.Task[None]] = set()


async def init_db(settings: Settings | None = None) -> None:
    """Open the pool. A database that is away is found when it comes; nothing is created in it."""
    global _pool
    _pool = Pool(settings or get_settings())
    await _pool.open()


async def close_db() -> None:
    """Close the pool and its connections; a connection in use is closed when it is given back."""
    global _pool
    pool, _pool = _pool, None
    if pool is not None:
        await pool.close()


def get_pool() -> Pool:
    """Return the open pool. Raises `DatabaseUnavailable` outside the application's lifespan."""
    if _pool is None:
        raise DatabaseUnavailable("The database pool is not open")
    return _pool


def no_connection_error() -> DatabaseUnavailable:
    """Return what a request fails with that has waited for a connection."""
    return (_pool and _pool.find_outage()) or DatabaseUnavailable(BUSY)


async def _check(conn: AsyncConnection[Any]) -> None:
    """Raise `psycopg.Error` for a connection that the server has closed, and sort out all others like it.

    A server that restarts or ends a session leaves the idle socket readable, so only such a connection costs a round
    trip. One whose peer vanished without a word is found by the keepalives.
    """
    if not _is_readable(conn):
        return
    try:
        await AsyncConnectionPool.check_connection(conn)
    except psycopg.Error:
        # The pool would meet the others one at a time, with a pause between two that doubles.
        await _shielded(get_pool().check())
        raise


def _is_readable(conn: AsyncConnection[Any]) -> bool:
    if not hasattr(select, "poll"):  # Windows, where select() takes any socket
        return bool(select.select([conn.pgconn.socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(conn.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


async def _shielded(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, which goes on when the caller is cancelled: psycopg's pool loses what it holds where it stops."""
    await asyncio.shield(_begin(work))


def _begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    return task


@contextmanager
def _disconnect_after(conn: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cut the connection where the block takes longer: a pooler keeps a statement waiting while its server is away."""
    with socket.socket(fileno=os.dup(conn.fileno())) as line:
        timer = asyncio.get_running_loop().call_later(seconds, line.shutdown, socket.SHUT_RDWR)
        try:
            yield
        finally:
            timer.cancel()
