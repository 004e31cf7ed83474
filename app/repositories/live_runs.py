"""What Redis holds of runs while they run: leases, wishes to cancel, live status, and who uses which resource.

All of it may be lost at any moment and is then made again: PostgreSQL knows which runs there are and whose they are.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from itertools import chain
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.core.redis import describe_redis_error

T = TypeVar("T")

_log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
_PATIENCE_SECONDS = 1.0
# A live status that nobody writes any more is none.
_STATUS_SECONDS = 60
_ENDED_SECONDS = 86_400
_WISH_SECONDS = 86_400
# Redis counts as one that answers again when it has refused nothing for so long.
_REFUSAL_SECONDS = 10.0

_KEEP_LEASE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_FREE_LEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_SHOW = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""
_END = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
if redis.call('HGET', KEYS[2], 'request_id') == ARGV[1] then redis.call('DEL', KEYS[2]) end
redis.call('DEL', KEYS[3])
return 1
"""
_TAKE_SLOT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_NO_LIMIT = 1_000_000


class LiveRuns:
    """Runs by their identifiers. Nothing here fails: while Redis is away, whoever asks gets what lets runs go on.

    A token stands for one worker that has one run in its hands. A command counts as unanswered after `patience`
    seconds, and `level` is how loudly that is said.
    """

    def __init__(self, redis: Redis, patience: float = _PATIENCE_SECONDS, level: int = logging.WARNING) -> None:
        self._redis = redis
        self._patience = patience
        self._level = level
        self._is_away = False
        self._quiet_until = 0.0
        self._keep_lease = redis.register_script(_KEEP_LEASE)
        self._free_lease = redis.register_script(_FREE_LEASE)
        self._show = redis.register_script(_SHOW)
        self._end = redis.register_script(_END)
        self._take_slot = redis.register_script(_TAKE_SLOT)

    async def take_lease(self, run: str, token: str, seconds: float = LEASE_SECONDS) -> bool:
        """Return False where somebody has the run at this moment."""
        taken = self._redis.set(_lease(run), token, nx=True, px=_milliseconds(seconds))
        return bool(await self._ask(taken, True))

    async def keep_lease(self, run: str, token: str, seconds: float = LEASE_SECONDS) -> bool:
        """Hold the lease for another while, and take it where it was lost. False where it is somebody else's."""
        kept = self._keep_lease([_lease(run)], [token, _milliseconds(seconds)])
        return bool(await self._ask(kept, 1))

    async def free_lease(self, run: str, token: str) -> None:
        await self._ask(self._free_lease([_lease(run)], [token]), 0)

    async def wish_cancelled(self, run: str) -> None:
        """Have a worker see within half a second that the run, which is cancelled in PostgreSQL, is to end."""
        await self._ask(self._redis.set(_wish(run), "1", ex=_WISH_SECONDS), None)

    async def is_wished_cancelled(self, run: str) -> bool:
        return bool(await self._ask(self._redis.exists(_wish(run)), 0))

    async def show(self, run: str, token: str, fields: Mapping[str, str], video: str | None) -> bool:
        """Write the live status of a run, as the one of its `video` where that is named. False where the run is in
        other hands."""
        key = _of_run(run) if video is None else _of_video(video)
        return bool(await self._ask(self._show([_lease(run), key], [token, _STATUS_SECONDS, *_flat(fields)]), 1))

    async def end(self, run: str, video: str, fields: Mapping[str, str]) -> None:
        """Keep the status of a run that has ended for a day; it is not its video's live one any more."""
        keys = [_of_run(run), _of_video(video), _wish(run)]
        await self._ask(self._end(keys, [run, _ENDED_SECONDS, *_flat(fields)]), 1)

    async def find(self, run: str, video: str) -> dict[str, str]:
        """Return what a run's worker has told last, live or at its end; nothing where it has told nothing."""
        live: dict[str, str] = await self._ask(self._redis.hgetall(_of_video(video)), {})
        if live.get("request_id") == run:
            return live
        return await self._ask(self._redis.hgetall(_of_run(run)), {})

    async def take_slot(self, resource: str, token: str, limit: int, seconds: float = LEASE_SECONDS) -> bool:
        """Become one of at most `limit` users of a resource for a while. False where there are as many."""
        taken = self._take_slot([_slots(resource)], [token, limit, _milliseconds(seconds)])
        return bool(await self._ask(taken, 1))

    async def keep_slot(self, resource: str, token: str, seconds: float = LEASE_SECONDS) -> None:
        await self.take_slot(resource, token, _NO_LIMIT, seconds)

    async def free_slot(self, resource: str, token: str) -> None:
        await self._ask(self._redis.zrem(_slots(resource), token), 0)

    async def _ask(self, question: Awaitable[Any], default: T) -> T | Any:
        try:
            answer = await _within(self._patience, question)
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
    if asking.cancelled() or not asking.done():
        raise TimeoutError("no answer in time")
    return asking.result()


def _ignore(asked: asyncio.Future[Any]) -> None:
    """Look at what nobody waits for any more: asyncio would log an error in it."""
    if not asked.cancelled():
        asked.exception()


def keys_of_run(run: str) -> list[str]:
    """Return the keys that are of no other run."""
    return [_of_run(run), _lease(run), _wish(run)]


def _of_run(run: str) -> str:
    return f"pipeline:run:{run}"


def _of_video(video: str) -> str:
    return f"pipeline:{video}:active"


def _lease(run: str) -> str:
    return f"pipeline:run:{run}:lease"


def _wish(run: str) -> str:
    return f"pipeline:run:{run}:cancel"


def _slots(resource: str) -> str:
    return f"pipeline:limit:{resource}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _flat(fields: Mapping[str, str]) -> list[str]:
    return list(chain.from_iterable(fields.items()))
