"""The time limit of a stage, which runs only while the stage works, and what its status says meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable


class StageClock:
    """Stops the limit while every call of the stage waits for its turn, and starts it again with the first that works.

    Until the first call has worked, the stage is recorded as waiting; its start is then the start of its work.
    """

    def __init__(
        self,
        limit: asyncio.Timeout,
        record_wait: Callable[[], Awaitable[None]],
        record_work: Callable[[], Awaitable[None]],
    ) -> None:
        self._limit = limit
        self._record_wait = record_wait
        self._record_work = record_work
        self._waiting: set[Hashable] = set()
        self._working: set[Hashable] = set()
        self._left: float | None = None  # seconds, while the limit is stopped
        self._has_worked = False
        self._is_recorded_waiting = False

    async def wait(self, call: Hashable) -> None:
        self._waiting.add(call)
        self._settle()
        if not self._has_worked and not self._is_recorded_waiting:
            self._is_recorded_waiting = True
            await self._record_wait()

    async def work(self, call: Hashable) -> None:
        self._waiting.discard(call)
        self._working.add(call)
        self._settle()
        self._has_worked = True
        if self._is_recorded_waiting:
            self._is_recorded_waiting = False
            await self._record_work()

    def leave(self, call: Hashable) -> None:
        self._waiting.discard(call)
        self._working.discard(call)
        self._settle()

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
