"""The consumer of the stream `pipeline:requests`, in which other programs request runs."""

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
from app.core.redis import describe_redis_error, make_redis, translate_redis_error
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
from app.database import Database
from app.database.errors import translate_database_error
from app.services.intake import (
    REQUEST_GROUP,
    REQUEST_STREAM,
    StreamRequestIntake,
    create_request_consumer_group,
    is_transient_error,
)
from app.services.queue import Notify
from app.storage import Storage

T = TypeVar("T")
StreamEntry = tuple[bytes, dict[bytes, bytes]]  # its id, and its fields, which are empty for a deleted one

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


class RequestStreamConsumer:
    """Creates runs from the entries of the stream, and acknowledges each entry after the commit, in any worker."""

    def __init__(self, settings: Settings, database: Database, redis: Redis, storage: Storage, notify: Notify) -> None:
        self._requests = StreamRequestIntake(settings, database, redis, storage, notify)
        self._redis = make_redis(settings, answers_text=False)  # in bytes: other programs may write what is no text
        self.name = f"intake-{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._has_pending = False  # entries that were delivered and perhaps not received
        self._pending_after: bytes | str = "0"
        self._claim_at = 0.0
        self._stopping = asyncio.Event()
        self._outage_log = _IntakeOutageLog()

    async def consume_until_cancelled(self) -> None:
        """Process entries until cancelled; the current entry then gets up to five seconds to be acknowledged."""
        consuming = asyncio.create_task(self._consume_until_stopped())
        try:
            await asyncio.shield(consuming)
        finally:
            self._stopping.set()
            await asyncio.wait({consuming}, timeout=_STOP_SECONDS)
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
            await self._redis.aclose()

    async def _consume_until_stopped(self) -> None:
        await self._call_until_stopped(self._delete_stale_consumers)
        while not self._stopping.is_set():
            try:
                for entry_id, fields in await self._call_until_stopped(self._read_next_entry):
                    self._pending_after = entry_id  # one that fails is claimed again when it has been idle long enough
                    await self._process_and_acknowledge(entry_id.decode(), fields)
            except Exception:
                _log.exception("Failed to read or to settle a request of another program")
                await self._sleep_or_raise_cancelled(_PAUSE_SECONDS)
        with suppress(RedisError, OSError):
            await self._delete_own_consumer()

    async def _process_and_acknowledge(self, entry_id: str, fields: dict[bytes, bytes]) -> None:
        if fields:
            await self._call_until_stopped(lambda: self._requests.enqueue_or_reject(entry_id, fields))
        else:
            _log.warning("Entry %s of another program was deleted before it was read", entry_id)
        await self._call_until_stopped(lambda: self._redis.xack(REQUEST_STREAM, REQUEST_GROUP, entry_id))

    async def _read_next_entry(self) -> list[StreamEntry]:
        """Return one entry: an own pending one, one of a dead consumer, or a new one; none after half a second."""
        try:
            return (
                await self._read_pending_entry()
                or await self._claim_idle_entry()
                or await self._read_entry_after(">", _BLOCK_MS)
            )
        except ResponseError as error:
            if not str(error).startswith(_GROUP_IS_GONE):
                raise
        await create_request_consumer_group(self._redis)
        return []

    async def _read_pending_entry(self) -> list[StreamEntry]:
        if not self._has_pending:
            return []
        pending = await self._read_entry_after(self._pending_after)
        self._has_pending = bool(pending)
        return pending

    async def _claim_idle_entry(self) -> list[StreamEntry]:
        if time.monotonic() < self._claim_at:
            return []
        start: bytes | str = "0-0"
        while True:
            reply: Any = await self._redis.xautoclaim(
                REQUEST_STREAM, REQUEST_GROUP, self.name, _IDLE_MS, start_id=start, count=1
            )
            start, claimed = reply[0], [entry for entry in reply[1] if entry[0] is not None]
            if claimed:
                return claimed
            if start == b"0-0":
                self._claim_at = time.monotonic() + _CLAIM_SECONDS
                return []

    async def _read_entry_after(self, entry_id: bytes | str, block_ms: int | None = None) -> list[StreamEntry]:
        reply: Any = await self._redis.xreadgroup(
            REQUEST_GROUP, self.name, {REQUEST_STREAM: entry_id}, count=1, block=block_ms
        )
        return list(reply[0][1]) if reply else []

    async def _delete_stale_consumers(self) -> None:
        try:
            consumers = await self._redis.xinfo_consumers(REQUEST_STREAM, REQUEST_GROUP)
            for consumer in consumers:
                if not consumer["pending"] and consumer["idle"] > _STALE_CONSUMER_MS:
                    await self._redis.xgroup_delconsumer(REQUEST_STREAM, REQUEST_GROUP, consumer["name"])
        except ResponseError as error:
            _log.debug("Consumers of the group stay: %s", describe_redis_error(error))

    async def _delete_own_consumer(self) -> None:
        pending: Any = await self._redis.xpending_range(REQUEST_STREAM, REQUEST_GROUP, "-", "+", 1, self.name)
        if not pending and not self._has_pending:  # pending entries would be lost with the consumer
            await self._redis.xgroup_delconsumer(REQUEST_STREAM, REQUEST_GROUP, self.name)

    async def _call_until_stopped(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call a function, again after transient errors, until it succeeds or the intake is stopped."""

        def note_failure(failed: FailedCall) -> None:
            self._has_pending = True
            self._outage_log.log_outage_once(failed.error)

        result = await call_with_retries(
            call, _TRANSIENT_POLICY, before_wait=note_failure, sleep=self._sleep_or_raise_cancelled
        )
        self._outage_log.log_recovery()
        return result

    async def _sleep_or_raise_cancelled(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise asyncio.CancelledError


class _IntakeOutageLog:
    """Logs an outage of Redis or of another server once, until a minute without it has passed, and its end."""

    def __init__(self) -> None:
        self._noticed_at: dict[bool, float] = {}
        self._is_reported = False

    def log_outage_once(self, error: Exception) -> None:
        is_redis, now = isinstance(error, RedisError | OSError | RedisUnavailable), time.monotonic()
        if now - self._noticed_at.get(is_redis, float("-inf")) > _SAME_OUTAGE_SECONDS:
            _log.warning("Requests of other programs wait: %s", _describe_outage(error))
            self._is_reported = True
        self._noticed_at[is_redis] = now

    def log_recovery(self) -> None:
        if self._is_reported:
            _log.info("Requests of other programs are read again")
            self._is_reported = False


def _describe_outage(error: Exception) -> str:
    if isinstance(error, psycopg.Error):
        return str(translate_database_error(error))
    if isinstance(error, RedisError | OSError):
        return f"{translate_redis_error(error) or 'Redis cannot be used'} ({describe_redis_error(error)})"
    return str(error)
