"""States that many clients follow, each looked up once for all who follow it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass

from app.core.errors import TooManyFollowers

_log = logging.getLogger(__name__)

FOLLOWERS_AT_MOST = 1000
LOOK_SECONDS = 1.0
# Proxies close what is quiet for a minute, and some for half of one.
QUIET_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class State:
    """A state in the form it is sent in; nothing comes after the last one."""

    id: str
    data: bytes
    is_last: bool


class _Feed:
    def __init__(self) -> None:
        self.latest: State | None = None
        self.changed = asyncio.Event()
        self.has_ended = False
        self.followers = 0
        self.task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Feeds:
    """Follows states by their keys; nothing is looked up for a key that nobody follows."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[State]],
        is_stopping: Callable[[], bool],
        *,
        followers_at_most: int = FOLLOWERS_AT_MOST,
        look_seconds: float = LOOK_SECONDS,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._read = read
        self._is_stopping = is_stopping
        self._followers_at_most = followers_at_most
        self._look_seconds = look_seconds
        self._quiet_seconds = quiet_seconds
        self._feeds: dict[str, _Feed] = {}

    async def get_state(self, key: str) -> State:
        """Return the state as it is now. Raises `TooManyFollowers` where no more can follow what comes after it."""
        if sum(feed.followers for feed in self._feeds.values()) >= self._followers_at_most:
            raise TooManyFollowers
        return await self._read(key)

    async def follow(self, key: str, known: State) -> AsyncGenerator[State | None]:
        """Yield each state that comes after the known one, and None whenever there was none for a while.

        Ends behind the last state, and when the server stops.
        """
        feed = self._join(key)
        try:
            while not known.is_last:
                changed = feed.changed
                if feed.latest is not None and feed.latest.id != known.id:
                    known = feed.latest
                    yield known
                elif feed.has_ended:
                    return
                elif not await self._wait(changed):
                    yield None
        finally:
            self._leave(key, feed)

    async def _wait(self, changed: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._quiet_seconds):
                return await changed.wait()
        except TimeoutError:
            return False

    def _join(self, key: str) -> _Feed:
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed()
            feed.task = asyncio.create_task(self._look(key, feed), context=Context())  # of no request
        feed.followers += 1
        return feed

    def _leave(self, key: str, feed: _Feed) -> None:
        feed.followers -= 1
        if not feed.followers and feed.task is not None:
            feed.task.cancel()
            self._forget(key, feed)

    def _forget(self, key: str, feed: _Feed) -> None:
        if self._feeds.get(key) is feed:
            del self._feeds[key]

    async def _look(self, key: str, feed: _Feed) -> None:
        try:
            while not self._is_stopping():
                await asyncio.sleep(self._look_seconds)
                try:
                    state = await self._read(key)
                except Exception as error:  # whoever follows waits until it can be read again
                    _log.warning("The state of %r cannot be told now: %s", key, error)
                    continue
                if feed.latest is None or state.id != feed.latest.id:
                    feed.latest = state
                    feed.tell()
                if state.is_last:
                    return
        finally:
            feed.has_ended = True
            self._forget(key, feed)
            feed.tell()
