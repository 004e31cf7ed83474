"""The live status of runs in Redis: how far each is, for clients that ask often.

All of it may be lost at any moment and is then written again: PostgreSQL knows which runs there are.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.core.redis import describe_redis_error

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0
_SETTLE_SECONDS = 0.1
_AWAY_SECONDS = 0.5  # for a server that has not answered the last time
# A live status that no worker writes any more is none; that of a run between two workers stays for longer.
_STATUS_SECONDS = 60
_WAITING_SECONDS = 86_400
_ENDED_SECONDS = 86_400
# Redis counts as one that answers again when it has refused nothing for so long.
_REFUSAL_SECONDS = 10.0


class LiveRuns:
    """Runs by their identifiers. Nothing here fails: while Redis is away, nothing is shown and nothing found.

    A command counts as unanswered after `patience` seconds, and `level` is the level of the log lines about that.
    """

    def __init__(self, redis: Redis, patience: float = _PATIENCE_SECONDS, level: int = logging.WARNING) -> None:
        self._redis = redis
        self._patience = patience
        self._level = level
        self._is_away = False
        self._quiet_until = 0.0

    async def show(self, run: str, fields: Mapping[str, str], video: str | None, *, is_waiting: bool = False) -> None:
        """Write the live status of a run, as the one of its `video` where that is named."""
        key = key_of_run(run) if video is None else _key_of_video(video)
        seconds = _WAITING_SECONDS if is_waiting else _STATUS_SECONDS
        await self._ask(self._write(key, fields, seconds), None)

    async def end(self, run: str, video: str, fields: Mapping[str, str]) -> None:
        """Keep the status of a run that has ended for a day; it is not its video's live one any more."""
        await self._ask(self._end(run, video, fields), None)

    async def find(self, run: str, video: str) -> dict[str, str]:
        """Return what a run's worker has written last, live or at its end; nothing where it has written nothing."""
        live: dict[str, str] = await self._ask(self._redis.hgetall(_key_of_video(video)), {})
        if live.get("request_id") == run:
            return live
        return await self._ask(self._redis.hgetall(key_of_run(run)), {})

    async def forget(self, run: str, video: str) -> None:
        """Delete the live status of a run that has ended without a worker."""
        await self._ask(self._forget(run, video), None)

    async def _write(self, key: str, fields: Mapping[str, str], seconds: int) -> None:
        async with self._redis.pipeline() as pipeline:
            pipeline.hset(key, mapping=dict(fields.items()))
            pipeline.expire(key, seconds)
            await pipeline.execute()

    async def _end(self, run: str, video: str, fields: Mapping[str, str]) -> None:
        await self._write(key_of_run(run), fields, _ENDED_SECONDS)
        await self._forget(run, video)

    async def _forget(self, run: str, video: str) -> None:
        """Two runs of one video exclude each other, so a later one has not begun where its status is read here; one
        that begins before the deletion is shown again with its next status."""
        if await self._redis.hget(_key_of_video(video), "request_id") == run:
            await self._redis.delete(_key_of_video(video))

    async def _ask(self, question: Awaitable[Any], default: T) -> T | Any:
        try:
            answer = await _within(min(self._patience, _AWAY_SECONDS) if self._is_away else self._patience, question)
        except (RedisError, OSError) as error:
            if isinstance(error, ResponseError):  # it may answer the next command, and refuse this one again
                self._quiet_until = time.monotonic() + _REFUSAL_SECONDS
            if not self._is_away:
                self._is_away = True
                _log.log(self._level, "Redis cannot be used, runs go on without it: %s", describe_redis_error(error))
            return default
        if self._is_away and time.monotonic() >= self._quiet_until:
            self._is_away = False
            _log.log(self._level, "Redis answers again")
        return answer


async def _within(seconds: float, question: Awaitable[Any]) -> Any:
    """Raises `TimeoutError`. In a task of its own: redis-py sometimes goes on where the task that asks is cancelled."""
    asking = asyncio.ensure_future(question)
    try:
        await asyncio.wait({asking}, timeout=seconds)
    finally:
        if not asking.done():
            asking.cancel()
            asking.add_done_callback(_ignore)
            await asyncio.wait({asking}, timeout=_SETTLE_SECONDS)  # it closes the connection that it was opening
    if asking.cancelled() or not asking.done():
        raise TimeoutError("no answer in time")
    return asking.result()


def _ignore(asked: asyncio.Future[Any]) -> None:
    """Look at what nobody waits for any more: asyncio would log an error in it."""
    if not asked.cancelled():
        asked.exception()


def key_of_run(run: str) -> str:
    """Return the key of a run's own status."""
    return f"pipeline:run:{run}"


def _key_of_video(video: str) -> str:
    return f"pipeline:{video}:active"
