"""Health checks of PostgreSQL and Redis, with a bounded waiting time."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable, DatabaseUnreachable
from app.database import get_pool, open_async_connection
from app.database.catalog import DatabaseCondition, read_database_condition
from app.database.errors import READ_ONLY, make_unreachable_error, translate_database_error
from app.database.migrations import list_migration_revisions
from app.services.intake import REQUEST_STREAM

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Health answers within 2 s.
_CHECK_TIMEOUT = 1.5
# How long to wait for a pooled connection before opening a separate one.
_POOL_TIMEOUT = 0.3


class SharedHealthCheck(Generic[T]):
    """Runs one check at a time for all callers, and does not wait for a hanging one.

    psycopg answers a cancellation only when its server does, so a slow check is abandoned instead.
    """

    def __init__(self, check: Callable[[], Awaitable[T]]) -> None:
        self._check = check
        self._running: asyncio.Task[T | None] | None = None

    async def run_or_join(self) -> T | None:
        """Return the result of the check that is running, or of a new one; None if it fails or takes over 1.5 s."""
        running = self._running
        if running is None or running.done():
            running = self._running = asyncio.create_task(self._run_check_or_none())
        done, _ = await asyncio.wait({running}, timeout=_CHECK_TIMEOUT)
        return running.result() if done else None  # `self._running` may have been replaced

    async def _run_check_or_none(self) -> T | None:
        try:
            return await self._check()
        except Exception as error:  # any error means that the server is unhealthy
            _log.debug("A health check failed: %s", error)
            return None


class ServerHealth:
    """Whether this server can serve requests: the state of PostgreSQL and Redis, and whether it is shutting down."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.is_stopping = False
        self._settings = settings
        self._database = SharedHealthCheck(self._read_database_condition_or_error)
        self._redis = SharedHealthCheck(lambda: _check_redis_permits_commands(redis))

    async def check_redis_and_database(self) -> tuple[bool, bool]:
        """Return whether Redis and the database answer and grant this server at least some of its rights."""
        redis, condition = await asyncio.gather(self._redis.run_or_join(), self._database.run_or_join())
        return bool(redis), isinstance(condition, DatabaseCondition) and condition.has_rights

    async def find_unready_reason(self) -> str:
        """Return why the server cannot serve requests, as a sentence; '' if it can."""
        if self.is_stopping:
            return "The server is shutting down"
        condition = await self._database.run_or_join()
        if condition is None:
            return "The database is not available"
        return _describe_condition_problem(condition) if isinstance(condition, DatabaseCondition) else str(condition)

    async def _read_database_condition_or_error(self) -> DatabaseCondition | DatabaseUnavailable:
        try:
            return await self._read_database_condition()
        except DatabaseUnavailable as refusal:  # its message may be shown to users
            return refusal

    async def _read_database_condition(self) -> DatabaseCondition:
        with contextlib.suppress(PoolTimeout, TooManyRequests, DatabaseUnreachable):
            async with get_pool().connection(timeout=_POOL_TIMEOUT) as conn:
                condition = await read_database_condition(conn)
                if not condition.is_read_only:
                    return condition
                conn.is_unusable = True  # a new connection may reach a writable server
        # Neither a busy pool nor old connections to a former primary mean that the database is down, and after an
        # outage the pool may be waiting for its next attempt.
        try:
            async with open_async_connection(self._settings) as conn:
                return await read_database_condition(conn)
        except psycopg.OperationalError as error:
            raise (translate_database_error(error) if error.sqlstate else None) or make_unreachable_error(
                error
            ) from None


async def _check_redis_permits_commands(redis: Redis) -> bool:
    """Return True. Raises the error of Redis if it refuses a command on this server's keys, or cannot save its data."""
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.exists(REQUEST_STREAM)
        pipeline.ping()
        found, pinged = await pipeline.execute(raise_on_error=False)
    if isinstance(found, Exception):
        raise found
    # A user of Redis may have rights for all keys and none for PING.
    if isinstance(pinged, Exception) and not isinstance(pinged, NoPermissionError):
        raise pinged
    return True


def _describe_condition_problem(condition: DatabaseCondition) -> str:
    """Return what is wrong with the database: rights, revision, or that it is read-only; '' if nothing is."""
    if condition.missing_rights_sentence:
        return condition.missing_rights_sentence
    revision, known = condition.revision, list_migration_revisions()
    if revision == known[0]:
        return READ_ONLY if condition.is_read_only else ""
    if revision in (None, *known):
        return f"The database is at revision {revision} and this code needs {known[0]}: run `alembic upgrade head`"
    return f"The database is at revision {revision}, which is ahead of this code: run a newer version"
