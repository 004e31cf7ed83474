"""The one pool of the process."""

import asyncio
import logging
import select
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from app.core.config import Settings, get_settings
from app.core.errors import DatabaseUnavailable
from app.database.connection import check_encoding, configure_connection, connect, connection_options
from app.database.errors import connection_error, loses_session

_log = logging.getLogger(__name__)

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
    """A connection that knows when it is of no more use, though it may still answer: see `loses_session`."""

    is_condemned = False

    async def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        try:
            return await super().wait(gen, *args, **options)
        except psycopg.Error as error:
            self.is_condemned = self.is_condemned or loses_session(error)
            raise


class Pool(AsyncConnectionPool[PooledConnection]):
    """psycopg's pool, which loses no connection when a request is cancelled while it gives it back.

    After a failover the old connections go on to a server that takes no changes. One that is given back condemned is
    closed, and those that lie idle are checked.
    """

    _condemned_at = _checked_at = float("-inf")
    _checking: asyncio.Task[None] | None = None

    async def getconn(self, timeout: float | None = None) -> PooledConnection:  # noqa: ASYNC109  as psycopg has it
        """Raises `DatabaseUnavailable` too, for a database of another encoding."""
        conn = await super().getconn(timeout)
        try:
            check_encoding(conn)
        except DatabaseUnavailable:
            await self.putconn(conn)
            raise
        return conn

    async def putconn(self, conn: PooledConnection) -> None:
        if not conn.is_condemned:
            return await _to_the_end(super().putconn(conn))
        self._condemned_at = now = time.monotonic()
        await conn.close()
        await _to_the_end(super().putconn(conn))
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
    settings = settings or get_settings()
    outage = _Outage(settings)
    _pool = Pool(
        "",
        connection_class=PooledConnection,
        name="videomoments",
        kwargs=connection_options(settings),
        configure=partial(_configure, settings=settings, outage=outage),
        check=_check,
        min_size=settings.database_pool_size,
        max_size=settings.database_pool_size + settings.database_max_overflow,
        timeout=settings.database_pool_timeout,
        max_waiting=settings.database_max_waiting,
        max_idle=_OVERFLOW_IDLE_SECONDS,
        max_lifetime=_LIFETIME_SECONDS,
        reconnect_timeout=_RECONNECT_SECONDS,
        reconnect_failed=outage.go_on,
        open=False,
    )
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
        await _to_the_end(get_pool().check())
        raise


def _is_readable(conn: AsyncConnection[Any]) -> bool:
    if not hasattr(select, "poll"):  # Windows, where select() takes any socket
        return bool(select.select([conn.pgconn.socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(conn.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, which goes on when the caller is cancelled: psycopg's pool loses what it holds where it stops."""
    await asyncio.shield(_begin(work))


def _begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    return task


class _Outage:
    """Says once why no connection can be opened and once that it can again, and keeps the pool trying."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lasts = False

    async def go_on(self, pool: AsyncConnectionPool[Any]) -> None:
        if not self._lasts:
            await self._begin()
        stats = pool.get_stats()
        if stats["requests_waiting"] or stats["pool_size"] < stats["pool_min"]:
            await pool.check()  # opens a connection where there are too few

    def end(self) -> None:
        if self._lasts:
            self._lasts = False
            _log.warning("PostgreSQL takes connections again")

    async def _begin(self) -> None:
        try:
            async with connect(self._settings):
                pass
        except psycopg.Error as error:
            if not self._lasts:
                self._lasts = True
                reason = connection_error(error, self._settings.database_parameters)
                _log.error("%s; trying again every second", reason)


async def _configure(conn: AsyncConnection[Any], settings: Settings, outage: _Outage) -> None:
    await configure_connection(conn, settings)
    outage.end()
