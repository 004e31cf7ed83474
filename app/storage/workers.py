"""Threads for calls that block: a bounded number, and none of those that everybody else uses."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

from app.core.turns import Turns

T = TypeVar("T")


class Workers:
    """Made at the first call, so that an application that was closed can be opened again."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._turns = Turns(size)
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Begin a call; its future may be left alone."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, self._name)
        return asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, function, *args)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Wait for a call. One that has begun goes on when the waiting is cancelled."""
        return await self.submit(function, *args)

    async def run_to_its_end(self, function: Callable[[], T], *, on_cancel: Callable[[], object] | None = None) -> T:
        """Wait for a call, also when the waiting is cancelled: afterwards nothing is being changed any more."""
        call = self.submit(function)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if on_cancel:
                on_cancel()
            while not call.done():
                with suppress(asyncio.CancelledError):  # told a second time to end, which it already does
                    await asyncio.wait([call])
            if not call.cancelled():
                call.exception()  # nobody else looks at it
            raise

    async def run_in_turn(self, function: Callable[[], T], *, on_cancel: Callable[[], object] | None = None) -> T:
        """Run a call to its end once a thread is free; the clock of a stage (`app.core.turns`) does not run before."""
        async with self._turns.take():
            return await self.run_to_its_end(function, on_cancel=on_cancel)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def on_loop(callback: Callable[[int], None] | None) -> Callable[[int], None]:
    """Return a function for other threads that has the running event loop call `callback`."""
    if callback is None:
        return lambda _: None
    loop, told = asyncio.get_running_loop(), callback

    def tell(value: int) -> None:
        loop.call_soon_threadsafe(told, value)

    return tell
