"""Feeds of states: each state is read once for all followers, and only while there are any."""

import asyncio
from contextlib import aclosing

import pytest

from app.core.errors import DatabaseUnavailable, TooManyFollowers
from app.services import live_runs
from app.services.live_runs import RunStatusFeeds, SerializedStatus

FIRST, SECOND, LAST = (SerializedStatus(name, name.encode(), name == "last") for name in ("first", "second", "last"))
_PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, "_POLL_SECONDS", 0.01)


class Source:
    """A state that a test sets, and that counts who looks at it."""

    def __init__(self) -> None:
        self.state = FIRST
        self.error: Exception | None = None
        self.looks = 0
        self._looked = asyncio.Event()
        self.is_stopping = False
        self.feeds = RunStatusFeeds(self._read, lambda: self.is_stopping)

    async def _read(self, key: str) -> SerializedStatus:
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
        async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(self.feeds.follow_status("talk", FIRST)) as states:
            return [state.id if state else None async for state in states]


async def test_each_change_is_sent_until_the_final_state() -> None:
    source = Source()
    following = asyncio.create_task(source.follow())
    await source.wait_for_looks(3)
    source.state = SECOND
    await source.wait_for_looks(3)
    source.state = LAST
    assert await following == ["second", "last"]


async def test_nothing_is_read_after_the_final_state() -> None:
    source = Source()
    async with aclosing(source.feeds.follow_status("talk", LAST)) as states:
        assert [state async for state in states] == []
    assert source.looks == 0


async def test_a_change_before_the_first_read_is_sent() -> None:
    source = Source()
    source.state = LAST
    assert await source.follow() == ["last"]


async def test_followers_of_the_same_state_share_each_read() -> None:
    source = Source()
    following = [asyncio.create_task(source.follow()) for _ in range(50)]
    await source.wait_for_looks(5)
    looks = source.looks
    assert looks < 50
    source.state = LAST
    assert await asyncio.gather(*following) == [["last"]] * 50


async def test_nothing_is_read_without_followers() -> None:
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


async def test_an_unchanged_state_sends_keep_alives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, "_KEEP_ALIVE_SECONDS", 0.02)
    source = Source()
    async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(source.feeds.follow_status("talk", FIRST)) as states:
        assert [await anext(states) for _ in range(3)] == [None, None, None]


async def test_a_state_that_cannot_be_read_for_a_while_is_sent_later() -> None:
    source = Source()
    source.error = DatabaseUnavailable("The database is not available, try again")
    following = asyncio.create_task(source.follow())
    await source.wait_for_looks(3)
    source.error, source.state = None, LAST
    assert await following == ["last"]


async def test_all_feeds_end_when_the_server_stops() -> None:
    source = Source()
    following = asyncio.create_task(source.follow())
    await source.wait_for_looks(2)
    source.is_stopping = True
    assert await following == []


async def test_the_number_of_followers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, "_MAX_FOLLOWERS", 2)
    source = Source()
    following = [asyncio.create_task(source.follow()) for _ in range(2)]
    await source.wait_for_looks(2)
    with pytest.raises(TooManyFollowers):
        await source.feeds.read_status_for_new_follower("other")
    source.state = LAST
    await asyncio.gather(*following)
    assert await source.feeds.read_status_for_new_follower("other") == LAST
