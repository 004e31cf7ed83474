"""Health checks of PostgreSQL and Redis, with a bounded waiting time."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
from app.database.migrations import list_code_revisions
from app.services.intake import REQUEST_STREAM

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Health answers within 2 s.
_CHECK_TIMEOUT = 1.5
# How long to wait for a pooled connection before opening a separate one.
_POOL_TIMEOUT = 0.3


@dataclass(frozen=True, slots=True)
class CheckResult(Generic[T]):
    """The result of a successful check."""

    found: T


class SharedCheck(Generic[T]):
    """Runs one check at a time for all callers, and does not wait for a hanging one.

    psycopg answers a cancellation only when its server does, so a slow check is abandoned instead.
    """

    def __init__(self, check: Callable[[], Awaitable[T]]) -> None:
        self._check = check
        self._running: asyncio.Task[CheckResult[T] | None] | None = None

    async def run(self) -> CheckResult[T] | None:
        """Return the result of the check, or None if it failed or takes too long."""
        running = self._running
        if running is None or running.done():
            running = self._running = asyncio.create_task(self._run())
        done, _ = await asyncio.wait({running}, timeout=_CHECK_TIMEOUT)
        return running.result() if done else None  # `self._running` may have been replaced

    async def _run(self) -> CheckResult[T] | None:
        try:
            return CheckResult(await self._check())
        except Exception as error:  # any error means that the server is unhealthy
            _log.debug("A health check failed: %s", error)
            return None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be served; the reason if not."""

    reason: str

    @property
    def is_ready(self) -> bool:
        return not self.reason


class Health:
    """The health of one running application."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.is_stopping = False
        self._settings = settings
        self._database = SharedCheck(self._check_database)
        self._redis = SharedCheck(lambda: _check_redis(redis))

    async def check(self) -> tuple[bool, bool]:
        """Return whether Redis and the database answer and grant this server at least some of its rights."""
        redis, checked = await asyncio.gather(self._redis.run(), self._database.run())
        condition = checked.found if checked else None
        return redis is not None, isinstance(condition, DatabaseCondition) and condition.has_rights

    async def check_readiness(self) -> Readiness:
        """Ready: the database is available, writable and at this code's revision, and the server is not stopping."""
        if self.is_stopping:
            return Readiness("The server is shutting down")
        checked = await self._database.run()
        if checked is None:
            return Readiness("The database is not available")
        condition = checked.found
        return Readiness(
            _find_unready_reason(condition) if isinstance(condition, DatabaseCondition) else str(condition)
        )

    async def _check_database(self) -> DatabaseCondition | DatabaseUnavailable:
        try:
            return await self._read_condition()
        except DatabaseUnavailable as refusal:  # its message may be shown to users
            return refusal

    async def _read_condition(self) -> DatabaseCondition:
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


async def _check_redis(redis: Redis) -> None:
    """Raise where no command can be run. A user of Redis may be allowed PING and none of this server's keys, or all
    of them and no PING, which a Redis that cannot save its data refuses, too."""
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.exists(REQUEST_STREAM)
        pipeline.ping()
        found, pinged = await pipeline.execute(raise_on_error=False)
    if isinstance(found, Exception):
        raise found
    if isinstance(pinged, Exception) and not isinstance(pinged, NoPermissionError):
        raise pinged


def _find_unready_reason(condition: DatabaseCondition) -> str:
    if condition.missing_rights_sentence:
        return condition.missing_rights_sentence
    return _compare_with_code(condition.revision) or (READ_ONLY if condition.is_read_only else "")


def _compare_with_code(revision: str | None) -> str:
    known = list_code_revisions()
    if revision == known[0]:
        return ""
    if revision in (None, *known):
        return f"The database is at revision {revision} and this code needs {known[0]}: run `alembic upgrade head`"
    return f"The database is at revision {revision}, which is ahead of this code: run a newer version"
