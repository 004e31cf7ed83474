"""The one pool of the process."""

import logging
import select
from functools import partial
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from app.core.config import Settings, get_settings
from app.core.errors import DatabaseUnavailable
from app.database.connection import configure_connection, connection_options

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

_log = logging.getLogger(__name__)
_pool: Pool | None = None

# A connection attempt is given up after this, and the next request makes a new one: a database that comes back is
# found at once, however long it was away. psycopg's own back-off would sleep for up to minutes.
_RECONNECT_SECONDS = 2.0
# Overflow connections are closed one by one, each after it was not needed for this long.
_OVERFLOW_IDLE_SECONDS = 15.0


async def init_db(settings: Settings | None = None) -> None:
    """Open the pool. A database that is away is found when it comes; nothing is created in it."""
    global _pool
    settings = settings or get_settings()
    outage = _Outage()
    _pool = AsyncConnectionPool(
        "",
        name="videomoments",
        kwargs=connection_options(settings),
        configure=partial(_configure, settings=settings, outage=outage),
        check=check_connection,
        min_size=settings.database_pool_size,
        max_size=settings.database_pool_size + settings.database_max_overflow,
        timeout=settings.database_pool_timeout,
        max_waiting=settings.database_max_waiting,
        max_idle=_OVERFLOW_IDLE_SECONDS,
        reconnect_timeout=_RECONNECT_SECONDS,
        reconnect_failed=outage.begin,
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


async def check_connection(conn: AsyncConnection[Any]) -> None:
    """Raise `psycopg.OperationalError` for a connection that the server has closed.

    A server that restarts or ends a session leaves the idle socket readable, so only such a connection costs a round
    trip. One whose peer vanished without a word is found by the keepalives.
    """
    poll = select.poll()
    poll.register(conn.pgconn.socket, select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(conn)


class _Outage:
    """Says once that the database is away, and once that it is back."""

    def __init__(self) -> None:
        self._lasts = False

    def begin(self, pool: Pool) -> None:
        if not self._lasts:
            self._lasts = True
            _log.error("PostgreSQL is not reachable; requests get 503 until it is")

    def end(self) -> None:
        if self._lasts:
            self._lasts = False
            _log.info("PostgreSQL is reachable again")


async def _configure(conn: AsyncConnection[Any], settings: Settings, outage: _Outage) -> None:
    await configure_connection(conn, settings)
    outage.end()
