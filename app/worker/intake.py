"""Reading requests of other programs from the stream `pipeline:requests`, for as long as a worker lives."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from tenacity import wait_exponential

from app.core.config import Settings
from app.core.errors import RedisUnavailable
from app.core.redis import describe_redis_error, make_bytes_redis, translate_redis_error
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
from app.database import Database
from app.database.errors import translate_database_error
from app.services.intake import (
    REQUEST_GROUP,
    REQUEST_STREAM,
    StreamRequestIntake,
    create_request_group,
    is_transient_error,
)
from app.services.queue import Notify
from app.storage import Storage

T = TypeVar("T")
# An entry's id and its fields, which are empty where it was deleted from the stream.
Entry = tuple[bytes, dict[bytes, bytes]]

_log = logging.getLogger(__name__)

# A stop waits for the end of a read: what Redis delivers to one that was cut off would go with the consumer.
_BLOCK_MS = 500
_IDLE_MS = 60_000  # after which an entry that is not acknowledged is another worker's
_CLAIM_SECONDS = 10.0  # between two looks for such entries
_STOP_SECONDS = 5.0
_STALE_CONSUMER_MS = 86_400_000
_TRANSIENT_POLICY = RetryPolicy(is_transient_error, wait_exponential(multiplier=0.1, max=5.0))
_PAUSE_SECONDS = 5.0  # after a failure that is not transient
_SAME_OUTAGE_SECONDS = 60.0
_GROUP_IS_GONE = ("NOGROUP", "UNBLOCKED")  # Redis was flushed


class Intake:
    """Makes runs of what other programs put into the stream. An entry is acknowledged when that is committed.

    There may be any number of them at once. `notify` sends the message of a run's first stage.
    """

    def __init__(self, settings: Settings, database: Database, redis: Redis, storage: Storage, notify: Notify) -> None:
        self._requests = StreamRequestIntake(settings, database, redis, storage, notify)
        self._reader = make_bytes_redis(settings)  # in bytes: other programs may write what is no text
        self.name = f"intake-{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._has_pending = False  # entries that were delivered and perhaps not received
        self._pending_after: bytes | str = "0"
        self._claim_at = 0.0
        self._stopping = asyncio.Event()
        self._outages = _OutageLog()

    async def run(self) -> None:
        """Read until cancelled; an entry that is in hand then is settled if that takes no longer than some seconds."""
        reading = asyncio.create_task(self._read_until_stopped())
        try:
            await asyncio.shield(reading)
        finally:
            self._stopping.set()
            await asyncio.wait({reading}, timeout=_STOP_SECONDS)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await self._reader.aclose()

    async def _read_until_stopped(self) -> None:
        await self._retry(self._delete_stale_consumers)
        while not self._stopping.is_set():
            try:
                for entry_id, fields in await self._retry(self._read):
                    self._pending_after = entry_id  # one that fails is claimed again when it has been idle long enough
                    await self._process_entry(entry_id.decode(), fields)
            except Exception:
                _log.exception("Failed to read or to settle a request of another program")
                await self._pause(_PAUSE_SECONDS)
        with suppress(RedisError, OSError):
            await self._leave_group()

    async def _process_entry(self, entry_id: str, fields: dict[bytes, bytes]) -> None:
        if fields:
            await self._retry(lambda: self._requests.enqueue_or_reject(entry_id, fields))
        else:
            _log.warning("Entry %s of another program was deleted before it was read", entry_id)
        await self._retry(lambda: self._reader.xack(REQUEST_STREAM, REQUEST_GROUP, entry_id))

    async def _read(self) -> list[Entry]:
        """Return an entry if there is one soon: one in hand before one of a dead worker, and that before a new one."""
        try:
            return await self._read_pending() or await self._claim_idle() or await self._read_group(">", _BLOCK_MS)
        except ResponseError as error:
            if not str(error).startswith(_GROUP_IS_GONE):
                raise
        await create_request_group(self._reader)
        return []

    async def _read_pending(self) -> list[Entry]:
        if not self._has_pending:
            return []
        pending = await self._read_group(self._pending_after)
        self._has_pending = bool(pending)
        return pending

    async def _claim_idle(self) -> list[Entry]:
        if time.monotonic() < self._claim_at:
            return []
        start: bytes | str = "0-0"
        while True:
            reply: Any = await self._reader.xautoclaim(
                REQUEST_STREAM, REQUEST_GROUP, self.name, _IDLE_MS, start_id=start, count=1
            )
            start, claimed = reply[0], [entry for entry in reply[1] if entry[0] is not None]
            if claimed:
                return claimed
            if start == b"0-0":
                self._claim_at = time.monotonic() + _CLAIM_SECONDS
                return []

    async def _read_group(self, start: bytes | str, block_ms: int | None = None) -> list[Entry]:
        reply: Any = await self._reader.xreadgroup(
            REQUEST_GROUP, self.name, {REQUEST_STREAM: start}, count=1, block=block_ms
        )
        return list(reply[0][1]) if reply else []

    async def _delete_stale_consumers(self) -> None:
        """Delete the consumers of workers that died long ago; their pending entries were claimed."""
        try:
            consumers = await self._reader.xinfo_consumers(REQUEST_STREAM, REQUEST_GROUP)
            for consumer in consumers:
                if not consumer["pending"] and consumer["idle"] > _STALE_CONSUMER_MS:
                    await self._reader.xgroup_delconsumer(REQUEST_STREAM, REQUEST_GROUP, consumer["name"])
        except ResponseError as error:
            _log.debug("Consumers of the group stay: %s", describe_redis_error(error))

    async def _leave_group(self) -> None:
        """Delete the own consumer, unless entries are pending for it, which would be lost with it."""
        pending: Any = await self._reader.xpending_range(REQUEST_STREAM, REQUEST_GROUP, "-", "+", 1, self.name)
        if not pending and not self._has_pending:
            await self._reader.xgroup_delconsumer(REQUEST_STREAM, REQUEST_GROUP, self.name)

    async def _retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call a function, again after transient errors, until it succeeds or the intake is stopped."""

        def report(failed: FailedCall) -> None:
            self._has_pending = True
            self._outages.report(failed.error)

        result = await call_with_retries(call, _TRANSIENT_POLICY, before_wait=report, sleep=self._pause)
        self._outages.end()
        return result

    async def _pause(self, seconds: float) -> None:
        """Raises `CancelledError` where the intake is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise asyncio.CancelledError


class _OutageLog:
    """Reports an outage of Redis or of another server once, however often it is noticed, and its end."""

    def __init__(self) -> None:
        self._noticed_at: dict[bool, float] = {}
        self._is_reported = False

    def report(self, error: Exception) -> None:
        is_redis, now = isinstance(error, RedisError | OSError | RedisUnavailable), time.monotonic()
        if now - self._noticed_at.get(is_redis, float("-inf")) > _SAME_OUTAGE_SECONDS:
            _log.warning("Requests of other programs wait: %s", _describe_outage(error))
            self._is_reported = True
        self._noticed_at[is_redis] = now

    def end(self) -> None:
        if self._is_reported:
            _log.info("Requests of other programs are read again")
            self._is_reported = False


def _describe_outage(error: Exception) -> str:
    if isinstance(error, psycopg.Error):
        return str(translate_database_error(error))
    if isinstance(error, RedisError | OSError):
        return f"{translate_redis_error(error) or 'Redis cannot be used'} ({describe_redis_error(error)})"
    return str(error)
