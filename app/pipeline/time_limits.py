"""Time limits that stop while a stage waits for its turn."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

from app.core.turns import observe_turns


@asynccontextmanager
async def limit_working_time(seconds: float) -> AsyncIterator[None]:
    """Raise `TimeoutError` where the block works longer; time in which all its calls wait for a turn does not count."""
    async with asyncio.timeout(seconds) as limit:
        with observe_turns(PausableTimeout(limit)):
            yield


class PausableTimeout:
    """Stops a limit while every call waits for its turn, and starts it again with the first that works."""

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._waiting: set[Hashable] = set()
        self._working: set[Hashable] = set()
        self._left: float | None = None  # seconds, while the limit is stopped

    async def wait(self, call: Hashable) -> None:
        self._waiting.add(call)
        self._settle()

    async def work(self, call: Hashable) -> None:
        self._waiting.discard(call)
        self._working.add(call)
        self._settle()

    def leave(self, call: Hashable) -> None:
        self._waiting.discard(call)
        self._working.discard(call)
        self._settle()

    def add_idle(self, seconds: float) -> None:
        end = self._limit.when()
        if end is not None and not self._limit.expired():
            self._limit.reschedule(end + seconds)

    def _settle(self) -> None:
        """Stop or start the limit, as the calls want it."""
        now, end = asyncio.get_running_loop().time(), self._limit.when()
        if self._limit.expired():
            return
        if self._waiting and not self._working:
            if end is not None:
                self._left = end - now
                self._limit.reschedule(None)
        elif self._left is not None:
            self._limit.reschedule(now + self._left)
            self._left = None


class StageTimeout(PausableTimeout):
    """The clock of a stage, which until the first call has worked is recorded as waiting.

    Its start is then the start of its work.
    """

    def __init__(
        self,
        limit: asyncio.Timeout,
        record_wait: Callable[[], Awaitable[None]],
        record_work: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(limit)
        self._record_wait = record_wait
        self._record_work = record_work
        self._has_worked = False
        self._is_recorded_waiting = False

    async def wait(self, call: Hashable) -> None:
        await super().wait(call)
        if not self._has_worked and not self._is_recorded_waiting:
            self._is_recorded_waiting = True
            await self._record_wait()

    async def work(self, call: Hashable) -> None:
        await super().work(call)
        self._has_worked = True
        if self._is_recorded_waiting:
            self._is_recorded_waiting = False
            await self._record_work()
