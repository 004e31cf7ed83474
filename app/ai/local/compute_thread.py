"""A thread for computations that take turns, report progress and can be cancelled."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import TypeVar

from app.ai.protocols import ProgressCallback
from app.core.thread_pool import SlotSemaphore

T = TypeVar("T")


class ComputationCancelled(Exception):
    """The computation was cancelled."""


class ComputationControl:
    """Lets a computation in a thread check whether its caller was cancelled, and report progress to the event loop."""

    def __init__(self, progress: ProgressCallback) -> None:
        self._cancelled = Event()
        self._progress = progress
        self._loop = asyncio.get_running_loop()

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        """Raise `ComputationCancelled` if the caller was cancelled."""
        if self._cancelled.is_set():
            raise ComputationCancelled

    def report(self, share: float) -> None:
        """Report the completed share, 0 to 1. Raises `ComputationCancelled`."""
        self.check()
        self._loop.call_soon_threadsafe(self._notify_unless_cancelled, min(max(share, 0.0), 1.0))

    def _notify_unless_cancelled(self, share: float) -> None:
        if not self._cancelled.is_set():
            self._progress(share)


class ComputeThread:
    """Runs one call at a time in its own thread; a call cancelled before its turn never starts.

    Turns are first come, first served, so work split into several calls lets short calls pass. `app.core.thread_pool`
    is notified of waiting and working.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)
        self._slots = SlotSemaphore()

    async def run(self, function: Callable[[ComputationControl], T], progress: ProgressCallback) -> T:
        async with self._slots.hold_slot():
            return await self._run_in_thread(function, progress)

    async def _run_in_thread(self, function: Callable[[ComputationControl], T], progress: ProgressCallback) -> T:
        control = ComputationControl(progress)
        future = self._executor.submit(function, control)
        call = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            control.cancel()
            if not future.cancel():
                await _wait_until_done(call)
            raise


async def _wait_until_done(call: "asyncio.Future[T]") -> None:
    while not call.done():
        with suppress(asyncio.CancelledError):  # cancelled again while ending
            await asyncio.wait([call])
    if not call.cancelled():
        call.exception()  # retrieved, so that asyncio does not warn
