"""The connection pool of the process, and what it does while PostgreSQL is down."""

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
from app.database.connection import configure_connection, make_connection_options, require_utf8_encoding
from app.database.errors import BUSY, is_session_lost, make_connection_error, make_unreachable_error

_log = logging.getLogger(__name__)

# How long a request waits for a connection in an outage: longer than the second between two attempts to connect, so
# that a request that arrives when PostgreSQL is up again is served.
_OUTAGE_WAIT_SECONDS = 1.5


class DatabaseOutage:
    """What the pool does while no connection can be opened: limits the waits of requests, and logs once."""

    def __init__(self, settings: Settings, has_connections: Callable[[], bool]) -> None:
        self._parameters = settings.database_parameters
        self._has_connections = has_connections
        self._error: Exception | None = None
        self._is_reported = False
        self._waiting: dict[asyncio.Timeout, float] = {}

    @property
    def error_for_requests(self) -> DatabaseUnreachable | None:
        return make_unreachable_error(self._error) if self._error is not None else None

    def begin_outage(self, error: Exception) -> None:
        self._error = error
        is_hopeless = not self._has_connections()
        for limit, asked_at in self._waiting.items():
            if not limit.expired():
                limit.reschedule(asked_at + _OUTAGE_WAIT_SECONDS if is_hopeless else None)

    def end_outage(self) -> None:
        self._error = None
        for limit in self._waiting:
            if not limit.expired():
                limit.reschedule(None)
        if self._is_reported:
            self._is_reported = False
            _log.warning("PostgreSQL accepts connections again")

    def log_outage(self) -> None:
        if isinstance(self._error, psycopg.Error) and not self._is_reported:
            self._is_reported = True
            _log.error("%s; trying again every second", make_connection_error(self._error, self._parameters))

    @asynccontextmanager
    async def limit_wait(self) -> AsyncIterator[None]:
        """Limit the time that the block waits for a connection in an outage. Raises `DatabaseUnreachable`."""
        asked_at = asyncio.get_running_loop().time()
        is_hopeless = self._error is not None and not self._has_connections()
        try:
            async with asyncio.timeout_at(asked_at + _OUTAGE_WAIT_SECONDS if is_hopeless else None) as limit:
                self._waiting[limit] = asked_at
                try:
                    yield
                finally:
                    del self._waiting[limit]
        except TimeoutError:
            raise self.error_for_requests or DatabaseUnavailable(BUSY) from None  # an attempt has just succeeded


# psycopg doubles the pause between two attempts: 1, 2, 4 … 256 s. Restarted after this long, attempts stay a second
# apart.
_RECONNECT_SECONDS = 2.0
# An overflow connection is closed after it was idle for this long.
_OVERFLOW_IDLE_SECONDS = 15.0
# No connection stays with one server for longer, for example after a failover by DNS.
_LIFETIME_SECONDS = 600.0
# Between two checks of the idle connections, and how long a request waits for a check.
_CHECK_PAUSE_SECONDS = 1.0
_CHECK_SECONDS = 0.5

RV = TypeVar("RV")


class PooledConnection(AsyncConnection[TupleRow]):
    """A connection that is marked as unusable once its session is lost, though it may still answer."""

    is_unusable = False

    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:
        settings: Settings = options.pop("settings")
        outage: DatabaseOutage = options.pop("outage")
        try:
            conn = await super().connect(conninfo, **make_connection_options(settings), **options)
            try:
                with _close_socket_after(conn, settings.database_connect_timeout):
                    await configure_connection(conn, settings)
            except BaseException:
                await conn.close()
                raise
        except Exception as error:
            outage.begin_outage(error)
            raise
        outage.end_outage()
        return conn

    async def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        try:
            return await super().wait(gen, *args, **options)
        except psycopg.Error as error:
            self.is_unusable = self.is_unusable or is_session_lost(error)
            raise


class DatabasePool(AsyncConnectionPool[PooledConnection]):
    """psycopg's pool, which does not lose a connection whose request is cancelled while it is returned.

    After a failover, old connections still lead to a server that is read-only now. An unusable connection is closed
    when it is returned, and then the idle ones are checked.
    """

    _condemned_at = _checked_at = float("-inf")
    _checking: asyncio.Task[None] | None = None
    _in_use = 0

    def __init__(self, settings: Settings) -> None:
        self._outage = DatabaseOutage(settings, self._has_connections)
        super().__init__(
            connection_class=PooledConnection,
            name="videomoments",
            kwargs={"settings": settings, "outage": self._outage},
            check=_check_if_server_closed,
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
        if len(self._waiting) >= self.max_waiting:  # psycopg also counts clients that have stopped waiting
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
            require_utf8_encoding(conn)
        except DatabaseUnavailable:
            await self.putconn(conn)
            raise
        return conn

    async def putconn(self, conn: PooledConnection) -> None:
        self._in_use -= 1
        if not conn.is_unusable:
            return await _await_shielded(super().putconn(conn))
        self._condemned_at = now = time.monotonic()
        await conn.close()
        await _await_shielded(super().putconn(conn))
        checking = self._checking
        if checking is None or checking.done():
            checking = self._checking = _start_task(self._check_idle_connections())
        if now - self._checked_at > _CHECK_PAUSE_SECONDS:  # the next request finds other connections
            await asyncio.wait({checking}, timeout=_CHECK_SECONDS)
        return None

    async def _check_idle_connections(self) -> None:
        while self._checked_at < self._condemned_at:
            await asyncio.sleep(self._checked_at + _CHECK_PAUSE_SECONDS - time.monotonic())
            if self.closed:
                return
            self._checked_at = time.monotonic()
            await self.check()

    def find_outage(self) -> DatabaseUnavailable | None:
        """Return why no further connection can be opened; None after a success, or where the pool is full."""
        return self._outage.error_for_requests if self._in_use < self.max_size else None

    def _has_connections(self) -> bool:
        return self._in_use > 0 or self.get_stats()["pool_available"] > 0

    async def _retry_connecting(self, pool: AsyncConnectionPool[Any]) -> None:
        self._outage.log_outage()
        stats = self.get_stats()
        if stats["requests_waiting"] or stats["pool_size"] < stats["pool_min"]:
            await self.check()  # opens a connection where there are too few

    @staticmethod
    async def check_connection(conn: AsyncConnection[Any]) -> None:
        if await anext(await conn.execute("SELECT current_setting('transaction_read_only')")) == ("on",):
            raise psycopg.OperationalError("The session is read-only")


_pool: DatabasePool | None = None
_unfinished: set[asyncio.Task[None]] = set()


async def init_db(settings: Settings | None = None) -> None:
    """Open the pool without waiting for the database; nothing is created in it."""
    global _pool
    _pool = DatabasePool(settings or get_settings())
    await _pool.open()


async def close_db() -> None:
    global _pool
    pool, _pool = _pool, None
    if pool is not None:
        await pool.close()


def get_pool() -> DatabasePool:
    if _pool is None:
        raise DatabaseUnavailable("The database pool is not open")
    return _pool


def make_no_connection_error() -> DatabaseUnavailable:
    return (_pool and _pool.find_outage()) or DatabaseUnavailable(BUSY)


async def _check_if_server_closed(conn: AsyncConnection[Any]) -> None:
    """Raise `psycopg.Error` for a pooled connection that the server has closed, and then check the other idle ones.

    A server that restarts or ends a session leaves the idle socket readable, so that only such a connection costs a
    round trip. The keepalives detect a peer that has vanished.
    """
    if not _is_socket_readable(conn):
        return
    try:
        await AsyncConnectionPool.check_connection(conn)
    except psycopg.Error:
        # Otherwise the pool finds the other closed ones one by one, with a pause that doubles.
        await _await_shielded(get_pool().check())
        raise


def _is_socket_readable(conn: AsyncConnection[Any]) -> bool:
    if not hasattr(select, "poll"):  # Windows, where select() takes any socket
        return bool(select.select([conn.pgconn.socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(conn.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


async def _await_shielded(coroutine: Coroutine[Any, Any, None]) -> None:
    """Await a coroutine that continues when the caller is cancelled: psycopg's pool loses a connection otherwise."""
    await asyncio.shield(_start_task(coroutine))


def _start_task(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(coroutine)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    return task


@contextmanager
def _close_socket_after(conn: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Close the socket where the block takes longer: a pooler lets a statement wait while its server is down."""
    with socket.socket(fileno=os.dup(conn.fileno())) as line:
        timer = asyncio.get_running_loop().call_later(seconds, line.shutdown, socket.SHUT_RDWR)
        try:
            yield
        finally:
            timer.cancel()
