"""Thread pools of bounded size for blocking calls, and the slots that callers wait for in order."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Protocol, TypeVar


class SlotObserver(Protocol):
    """Is notified when a call waits for a slot, gets one and ends; each call has its own token."""

    async def slot_awaited(self, call: Hashable) -> None: ...

    async def slot_acquired(self, call: Hashable) -> None: ...

    def slot_released(self, call: Hashable) -> None: ...

    def add_idle_time(self, seconds: float) -> None: ...


_observers: ContextVar[tuple[SlotObserver, ...]] = ContextVar("slot_observers", default=())


@contextmanager
def observe_slots(observer: SlotObserver) -> Iterator[None]:
    """Notify the observer of slots that the block, and the tasks it starts, wait for and get."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)


def report_idle_time(seconds: float) -> None:
    """Add seconds in which the work of this context was idle to its observers."""
    for observer in _observers.get():
        observer.add_idle_time(seconds)


class SlotSemaphore:
    """A fair semaphore of `at_once` slots; unlike `asyncio.Semaphore`, several event loops can use it in turn."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def hold_slot(self) -> AsyncIterator[None]:
        """Wait in order for a free slot and hold it in the block."""
        observers, slot = _observers.get(), self._request_slot()
        try:
            if not slot.done():
                for observer in observers:
                    await observer.slot_awaited(slot)
            await slot
            for observer in observers:
                await observer.slot_acquired(slot)
            yield
        finally:
            if slot.done() and not slot.cancelled():
                self._release_slot()
            else:
                slot.cancel()
            for observer in observers:
                observer.slot_released(slot)

    def _request_slot(self) -> "asyncio.Future[None]":
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            slot.set_result(None)
        else:
            self._waiting.append(slot)
        return slot

    def _release_slot(self) -> None:
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._free += 1


T = TypeVar("T")


class ThreadPool:
    """A bounded pool of threads, made at the first call, so that a closed application can be opened again."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._slots = SlotSemaphore(size)
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, self._name)
        return asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, function, *args)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return await self.submit(function, *args)

    async def run_shielded(self, function: Callable[[], T], *, on_cancel: Callable[[], object] | None = None) -> T:
        """Run a call in a thread and wait for its end even when cancelled: nothing changes after the return."""
        call = self.submit(function)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if on_cancel:
                on_cancel()
            while not call.done():
                with suppress(asyncio.CancelledError):  # cancelled again while it ends
                    await asyncio.wait([call])
            if not call.cancelled():
                call.exception()  # else it is logged as never retrieved
            raise

    async def run_in_slot(self, function: Callable[[threading.Event], T]) -> T:
        """Wait for a free thread, then run a call in it to its end; its event is set when the caller is cancelled.

        The time limit of a stage starts with the call.
        """
        stop_event = threading.Event()
        async with self._slots.hold_slot():
            return await self.run_shielded(partial(function, stop_event), on_cancel=stop_event.set)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def make_event_loop_callback(callback: Callable[[int], None] | None) -> Callable[[int], None]:
    """Return a function for other threads that calls `callback` in this event loop; None does nothing."""
    if callback is None:
        return lambda _: None
    loop, scheduled = asyncio.get_running_loop(), callback

    def schedule_callback(value: int) -> None:
        loop.call_soon_threadsafe(scheduled, value)

    return schedule_callback
