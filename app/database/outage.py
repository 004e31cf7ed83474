"""An outage: no connection to PostgreSQL can be opened, and no request waits long for one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable, DatabaseUnreachable
from app.database.errors import BUSY, connection_error, unreachable

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
