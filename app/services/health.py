"""Whether the servers behind the API answer, found out without ever waiting long."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from psycopg_pool import PoolTimeout, TooManyRequests

from app.core.config import Settings
from app.core.redis import get_redis
from app.database import connect, get_pool
from app.database.migrations import code_revisions, read_revision

_log = logging.getLogger(__name__)

# An answer is promised within 2 s.
_PATIENCE_SECONDS = 1.5
# How long to wait for a connection of a busy pool before asking over one of its own.
_POOL_SECONDS = 0.3


class Probe:
    """Runs one check at a time, shared by all who ask, and does not wait for one that hangs.

    psycopg answers a cancellation only when its server does: a check that takes too long is left alone.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._running: asyncio.Task[bool] | None = None

    async def succeeds(self) -> bool:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        done, _ = await asyncio.wait({self._running}, timeout=_PATIENCE_SECONDS)
        return bool(done) and self._running.result()

    async def _run(self) -> bool:
        try:
            await self._check()
        except Exception as error:  # whatever it is, the server behind does not answer as it should
            _log.debug("A health check failed: %s", error)
            return False
        return True


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be served, and the reason where they cannot."""

    reason: str

    @property
    def is_ready(self) -> bool:
        return not self.reason


class Health:
    """The state of one running application."""

    def __init__(self, settings: Settings) -> None:
        self.is_stopping = False
        self._settings = settings
        self._revision: str | None = None
        self._database = Probe(self._check_database)
        self._redis = Probe(_check_redis)

    async def check(self) -> tuple[bool, bool]:
        """Return whether Redis and the database answer."""
        redis, database = await asyncio.gather(self._redis.succeeds(), self._database.succeeds())
        return redis, database

    async def check_readiness(self) -> Readiness:
        """Ready means: not stopping, and a database that answers and is at this code's revision."""
        if self.is_stopping:
            return Readiness("The server is shutting down")
        if not await self._database.succeeds():
            return Readiness("The database is not available")
        return Readiness(_compare_with_code(self._revision))

    async def _check_database(self) -> None:
        with contextlib.suppress(PoolTimeout, TooManyRequests):
            async with get_pool().connection(timeout=_POOL_SECONDS) as conn:
                self._revision = await read_revision(conn)
            return
        async with connect(self._settings) as conn:  # the pool is busy, which is not the database's fault
            self._revision = await read_revision(conn)


async def _check_redis() -> None:
    await get_redis().ping()


def _compare_with_code(revision: str | None) -> str:
    known = code_revisions()
    if revision == known[0]:
        return ""
    if revision in (None, *known):
        return f"The database is at revision {revision} and this code needs {known[0]}: run `alembic upgrade head`"
    return f"The database is at revision {revision}, which is ahead of this code: run a newer version"
