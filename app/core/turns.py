"""Turns at what only so many can use at a time, and the observers of the work that waits for them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Protocol


class TurnObserver(Protocol):
    """Notified of the calls of one piece of work, of which several may be under way; each has a token of its own."""

    async def wait(self, call: Hashable) -> None:
        """A call has to wait for its turn."""
        ...

    async def work(self, call: Hashable) -> None:
        """A call has its turn."""
        ...

    def leave(self, call: Hashable) -> None:
        """A call ends, or waits no longer."""
        ...

    def add_idle(self, seconds: float) -> None:
        """The work stood still for some seconds, for a reason that is not its own."""
        ...


_observers: ContextVar[tuple[TurnObserver, ...]] = ContextVar("turn_observers", default=())


@contextmanager
def observe_turns(observer: TurnObserver) -> Iterator[None]:
    """Notify the observer, after those around it, of turns that are waited for in the block and in tasks it starts."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)


def note_idle(seconds: float) -> None:
    """Tell the observers around the caller that the work stands still for some seconds."""
    for observer in _observers.get():
        observer.add_idle(seconds)


class Turns:
    """First come, first served, `at_once` of them; unlike `asyncio.Semaphore` it serves several event loops, one after
    the other."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Hold the turn for the block."""
        observers, turn = _observers.get(), self._queue()
        try:
            if not turn.done():
                for observer in observers:
                    await observer.wait(turn)
            await turn
            for observer in observers:
                await observer.work(turn)
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            else:
                turn.cancel()
            for observer in observers:
                observer.leave(turn)

    def _queue(self) -> "asyncio.Future[None]":
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            turn.set_result(None)
        else:
            self._waiting.append(turn)
        return turn

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
