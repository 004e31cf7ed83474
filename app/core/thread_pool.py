"""Thread pools of bounded size for blocking calls, and the slots that callers wait for in order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, Protocol, TypeVar


class SlotObserver(Protocol):
    """Notified of the calls of one piece of work, of which several may be under way; each has a token of its own."""

    async def slot_awaited(self, call: Hashable) -> None:
        """A call has to wait for its turn."""
        ...

    async def slot_acquired(self, call: Hashable) -> None:
        """A call has its turn."""
        ...

    def slot_released(self, call: Hashable) -> None:
        """A call ends, or waits no longer."""
        ...

    def add_idle_time(self, seconds: float) -> None:
        """The work stood still for some seconds, for a reason that is not its own."""
        ...


_observers: ContextVar[tuple[SlotObserver, ...]] = ContextVar("turn_observers", default=())


@contextmanager
def observe_slots(observer: SlotObserver) -> Iterator[None]:
    """Notify the observer, after those around it, of turns that are waited for in the block and in tasks it starts."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)


def report_idle_time(seconds: float) -> None:
    """Tell the observers around the caller that the work stands still for some seconds."""
    for observer in _observers.get():
        observer.add_idle_time(seconds)


class Slots:
    """First come, first served, `at_once` of them; unlike `asyncio.Semaphore` it serves several event loops, one after
    the other."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Hold the turn for the block."""
        observers, turn = _observers.get(), self._request_slot()
        try:
            if not turn.done():
                for observer in observers:
                    await observer.slot_awaited(turn)
            await turn
            for observer in observers:
                await observer.slot_acquired(turn)
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._release_slot()
            else:
                turn.cancel()
            for observer in observers:
                observer.slot_released(turn)

    def _request_slot(self) -> "asyncio.Future[None]":
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            turn.set_result(None)
        else:
            self._waiting.append(turn)
        return turn

    def _release_slot(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


T = TypeVar("T")


class ThreadPool:
    """Made at the first call, so that an application that was closed can be opened again."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._turns = Slots(size)
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Begin a call; its future may be left alone."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, self._name)
        return asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, function, *args)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Wait for a call. One that has begun goes on when the waiting is cancelled."""
        return await self.submit(function, *args)

    async def run_shielded(self, function: Callable[[], T], *, on_cancel: Callable[[], object] | None = None) -> T:
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

    async def run_in_slot(self, function: Callable[[], T], *, on_cancel: Callable[[], object] | None = None) -> T:
        """Wait for a free thread, then run a call to its end; time limits of stages start with the call."""
        async with self._turns.acquire():
            return await self.run_shielded(function, on_cancel=on_cancel)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def call_on_event_loop(callback: Callable[[int], None] | None) -> Callable[[int], None]:
    """Return a function for other threads that has the running event loop call `callback`."""
    if callback is None:
        return lambda _: None
    loop, told = asyncio.get_running_loop(), callback

    def tell(value: int) -> None:
        loop.call_soon_threadsafe(told, value)

    return tell
