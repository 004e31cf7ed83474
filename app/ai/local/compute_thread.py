"""A thread for computing: calls take turns, and a cancelled call has stopped when it ends."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import TypeVar

from app.ai.protocols import ProgressCallback
from app.core.thread_pool import Slots

T = TypeVar("T")


class ComputationCancelled(Exception):
    """A computation that was told to stop."""


class ComputationControl:
    """What a computation in a thread looks at and tells."""

    def __init__(self, progress: ProgressCallback) -> None:
        self._cancelled = Event()
        self._progress = progress
        self._loop = asyncio.get_running_loop()

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        """Raise `ComputationCancelled` once nobody waits for the result any more."""
        if self._cancelled.is_set():
            raise ComputationCancelled

    def report(self, done: float) -> None:
        """Say how much is done, from 0 to 1, and stop where `check` would."""
        self.check()
        self._loop.call_soon_threadsafe(self._report, min(max(done, 0.0), 1.0))

    def _report(self, done: float) -> None:
        if not self._cancelled.is_set():
            self._progress(done)


class ComputeThread:
    """Does one call after the other in a thread of its own; a call that is cancelled before its turn is never started.

    Calls take turns in the order they come, so long work that is done in several calls lets short work pass. What
    follows a stage's time (`app.core.thread_pool`) is notified when its calls wait and when they work.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)
        self._turns = Slots()

    async def run(self, function: Callable[[ComputationControl], T], progress: ProgressCallback) -> T:
        async with self._turns.take():
            return await self._run(function, progress)

    async def _run(self, function: Callable[[ComputationControl], T], progress: ProgressCallback) -> T:
        control = ComputationControl(progress)
        future = self._executor.submit(function, control)
        call = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            control.cancel()
            if not future.cancel():
                await _wait_for_end(call)
            raise


async def _wait_for_end(call: "asyncio.Future[T]") -> None:
    while not call.done():
        with suppress(asyncio.CancelledError):  # told a second time to end, which it already does
            await asyncio.wait([call])
    if not call.cancelled():
        call.exception()  # nobody else looks at it
