"""States that many follow: looked up once for all, while anybody follows."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from app.core.errors import DatabaseUnavailable, TooManyFollowers
from app.services.status import FeedState, StatusFeeds

FIRST, SECOND, LAST = (FeedState(name, name.encode(), name == "last") for name in ("first", "second", "last"))
_PATIENCE_SECONDS = 60.0


class Source:
    """A state that a test sets, and that counts who looks at it."""

    def __init__(self, **options: Any) -> None:
        self.state = FIRST
        self.error: Exception | None = None
        self.looks = 0
        self._looked = asyncio.Event()
        self.is_stopping = False
        self.feeds = StatusFeeds(self._read, lambda: self.is_stopping, **({"poll_seconds": 0.01} | options))

    async def _read(self, key: str) -> FeedState:
        self.looks += 1
        self._looked.set()
        if self.error:
            raise self.error
        return self.state

    async def wait_for_looks(self, number: int) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for _ in range(number):
                await self._looked.wait()
                self._looked.clear()

    async def follow(self) -> list[str | None]:
        """Follow to the end and return the ids of what came."""
        async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(self.feeds.follow("talk", FIRST)) as states:
            return [state.id if state else None async for state in states]


async def test_each_change_is_told_until_the_last() -> None:
    source = Source()
    following = asyncio.create_task(source.follow())
    await source.wait_for_looks(3)
    source.state = SECOND
    await source.wait_for_looks(3)
    source.state = LAST
    assert await following == ["second", "last"]


async def test_after_the_last_state_nothing_is_looked_up() -> None:
    source = Source()
    async with aclosing(source.feeds.follow("talk", LAST)) as states:
        assert [state async for state in states] == []
    assert source.looks == 0


async def test_a_change_that_came_before_anybody_looked_is_told() -> None:
    source = Source()
    source.state = LAST
    assert await source.follow() == ["last"]


async def test_many_who_follow_the_same_share_each_look() -> None:
    source = Source()
    following = [asyncio.create_task(source.follow()) for _ in range(50)]
    await source.wait_for_looks(5)
    looks = source.looks
    assert looks < 50
    source.state = LAST
    assert await asyncio.gather(*following) == [["last"]] * 50


async def test_nothing_is_looked_up_when_everybody_has_gone() -> None:
    source = Source()
    following = [asyncio.create_task(source.follow()) for _ in range(2)]
    await source.wait_for_looks(2)
    following[0].cancel()
    await source.wait_for_looks(2)  # the other one is still there
    looking = source.feeds._feeds["talk"].task
    assert looking
    following[1].cancel()
    await asyncio.gather(*following, return_exceptions=True)
    await asyncio.wait([looking], timeout=_PATIENCE_SECONDS)
    assert looking.done()
    assert source.feeds._feeds == {}


async def test_where_nothing_changes_a_sign_of_life_comes_now_and_then() -> None:
    source = Source(keep_alive_seconds=0.02)
    async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(source.feeds.follow("talk", FIRST)) as states:
        assert [await anext(states) for _ in range(3)] == [None, None, None]


async def test_a_state_that_cannot_be_read_for_a_while_is_told_later() -> None:
    source = Source()
    source.error = DatabaseUnavailable("The database is not available, try again")
    following = asyncio.create_task(source.follow())
    await source.wait_for_looks(3)
    source.error, source.state = None, LAST
    assert await following == ["last"]


async def test_when_the_server_stops_nobody_follows_any_more() -> None:
    source = Source()
    following = asyncio.create_task(source.follow())
    await source.wait_for_looks(2)
    source.is_stopping = True
    assert await following == []


async def test_only_so_many_can_follow() -> None:
    source = Source(max_followers=2)
    following = [asyncio.create_task(source.follow()) for _ in range(2)]
    await source.wait_for_looks(2)
    with pytest.raises(TooManyFollowers):
        await source.feeds.get_state("other")
    source.state = LAST
    await asyncio.gather(*following)
    assert await source.feeds.get_state("other") == LAST
