"""Turns at what only one can use at a time, and the clock of the work that waits for them."""

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


_observer: ContextVar[TurnObserver | None] = ContextVar("turn_observer", default=None)


@contextmanager
def observe_turns(observer: TurnObserver) -> Iterator[None]:
    """Notify the observer of turns that are waited for in the block, and in tasks that it starts."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


class Turns:
    """First come, first served; unlike an `asyncio.Lock` it serves several event loops, one after the other."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Hold the turn for the block."""
        observer, turn = _observer.get(), self._queue()
        try:
            if observer and not turn.done():
                await observer.wait(turn)
            await turn
            if observer:
                await observer.work(turn)
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            else:
                turn.cancel()
            if observer:
                observer.leave(turn)

    def _queue(self) -> "asyncio.Future[None]":
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_taken:
            self._waiting.append(turn)
        else:
            self._is_taken = True
            turn.set_result(None)
        return turn

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False
