"""Time limits that are paused while a stage waits for its turn at a shared resource."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

from app.core.thread_pool import observe_slots


@asynccontextmanager
async def limit_working_time(seconds: float) -> AsyncIterator[None]:
    """Raise `TimeoutError` after so many seconds of work; the time while all calls of the block wait does not count."""
    async with asyncio.timeout(seconds) as limit:
        with observe_slots(PausableTimeout(limit)):
            yield


async def _record_nothing() -> None:
    pass


class PausableTimeout:
    """Pauses a timeout while all calls wait for their turn, and resumes it with the first call that works.

    `record_waiting` is called when the first call waits, and `record_working` when it works then.
    """

    def __init__(
        self,
        limit: asyncio.Timeout,
        record_waiting: Callable[[], Awaitable[None]] = _record_nothing,
        record_working: Callable[[], Awaitable[None]] = _record_nothing,
    ) -> None:
        self._limit = limit
        self._record_waiting = record_waiting
        self._record_working = record_working
        self._waiting: set[Hashable] = set()
        self._working: set[Hashable] = set()
        self._seconds_left: float | None = None  # while the timeout is paused
        self._has_worked = False
        self._is_recorded_waiting = False

    async def slot_awaited(self, call: Hashable) -> None:
        self._waiting.add(call)
        self._pause_or_resume()
        if not self._has_worked and not self._is_recorded_waiting:
            self._is_recorded_waiting = True
            await self._record_waiting()

    async def slot_acquired(self, call: Hashable) -> None:
        self._waiting.discard(call)
        self._working.add(call)
        self._pause_or_resume()
        self._has_worked = True
        if self._is_recorded_waiting:
            self._is_recorded_waiting = False
            await self._record_working()

    def slot_released(self, call: Hashable) -> None:
        self._waiting.discard(call)
        self._working.discard(call)
        self._pause_or_resume()

    def add_idle_time(self, seconds: float) -> None:
        end = self._limit.when()
        if end is not None and not self._limit.expired():
            self._limit.reschedule(end + seconds)

    def _pause_or_resume(self) -> None:
        now, end = asyncio.get_running_loop().time(), self._limit.when()
        if self._limit.expired():
            return
        if self._waiting and not self._working:
            if end is not None:
                self._seconds_left = end - now
                self._limit.reschedule(None)
        elif self._seconds_left is not None:
            self._limit.reschedule(now + self._seconds_left)
            self._seconds_left = None
