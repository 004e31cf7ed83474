"""The pool, by what could go wrong with it while PostgreSQL is up."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import pytest
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from app.core.errors import DatabaseUnavailable
from app.database import Connection, close_db, get_connection, get_db, get_pool
from app.database import pool as pool_module
from tests.database.pools import ask, count_connections, cut_connections, open_pool, query, take_all, within


async def test_there_is_no_pool_outside_the_lifespan() -> None:
    with pytest.raises(DatabaseUnavailable, match="not open"):
        get_pool()


async def test_closing_what_is_not_open_does_nothing() -> None:
    await close_db()


async def test_the_pool_has_the_sizes_of_the_settings(own_database_url: str) -> None:
    sizes = {"database_pool_size": 2, "database_max_overflow": 3, "database_pool_timeout": 4, "database_max_waiting": 6}
    async with open_pool(own_database_url, **sizes) as pool:
        assert (pool.min_size, pool.max_size, pool.timeout, pool.max_waiting) == (2, 5, 4, 6)
        assert pool.max_lifetime == 600


async def test_a_healthy_connection_is_given_without_a_round_trip(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(conn: Any) -> NoReturn:
        pytest.fail("the connection was asked")

    monkeypatch.setattr(AsyncConnectionPool, "check_connection", staticmethod(refuse))
    async with open_pool(own_database_url, database_pool_size=1, database_max_overflow=0) as pool:
        first = await ask(pool)
        assert await ask(pool) == first


async def test_what_the_server_says_unasked_does_not_cost_the_connection(own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=1, database_max_overflow=0) as pool:
        async with pool.connection() as conn:
            await conn.execute("LISTEN news")
        first = await ask(pool)
        query(own_database_url, "SELECT pg_notify('news', '')::text")
        assert await ask(pool) == first


async def test_cut_connections_do_not_delay_the_next_request(own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=5, database_max_overflow=10) as pool:
        before = await take_all(pool)
        cut_connections(own_database_url)
        async with asyncio.timeout(60):
            assert await ask(pool) not in before
            assert not set(await take_all(pool)) & set(before)


async def test_one_cut_connection_costs_no_other(own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=3, database_max_overflow=0) as pool:
        victim, *others = await take_all(pool)
        query(own_database_url, f"SELECT pg_terminate_backend({victim}, 5000)")
        after = await take_all(pool)
        assert victim not in after
        assert set(others) < set(after)


async def test_a_connection_cut_in_the_hands_of_a_request_is_replaced(own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=1, database_max_overflow=0) as pool:
        request = asyncio.create_task(ask(pool, seconds=60))
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        assert await within(60, lambda: query(own_database_url, sleeping) == 1)
        cut_connections(own_database_url)
        with pytest.raises(Exception, match="terminating connection"):
            await request
        await ask(pool)


async def test_a_drained_pool_gives_up_in_time(own_database_url: str) -> None:
    limits = {"database_pool_size": 1, "database_max_overflow": 1, "database_pool_timeout": 0.2}
    async with open_pool(own_database_url, **limits) as pool, pool.connection(60), pool.connection(60):
        async with asyncio.timeout(60):
            with pytest.raises(PoolTimeout):
                await pool.getconn()


async def test_a_full_queue_refuses_at_once(own_database_url: str) -> None:
    limits = {"database_pool_size": 1, "database_max_overflow": 0, "database_max_waiting": 2}
    async with open_pool(own_database_url, **limits) as pool:
        async with pool.connection():
            waiting = [asyncio.create_task(ask(pool)) for _ in range(2)]
            assert await within(60, lambda: pool.get_stats()["requests_waiting"] == 2)
            with pytest.raises(TooManyRequests):
                await pool.getconn()
        assert len(await asyncio.gather(*waiting)) == 2


async def test_a_burst_never_has_more_connections_than_size_and_overflow(own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=3, database_max_overflow=4) as pool:
        burst = asyncio.gather(*(ask(pool, seconds=0.01) for _ in range(200)))
        seen = []
        while not burst.done():
            seen.append(await asyncio.to_thread(count_connections, own_database_url))
        assert len(set(await burst)) <= 7
        assert max(seen) <= 7
        assert count_connections(own_database_url) == 7


async def test_overflow_is_closed_when_it_falls_idle(own_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_OVERFLOW_IDLE_SECONDS", 0.05)
    async with open_pool(own_database_url, database_pool_size=2, database_max_overflow=3) as pool:
        await take_all(pool)
        assert await within(60, lambda: count_connections(own_database_url) == 2)
        await asyncio.sleep(0.2)
        assert count_connections(own_database_url) == 2


async def test_no_connection_is_left_behind(own_database_url: str) -> None:
    async with open_pool(own_database_url) as pool:
        await take_all(pool)
        held = await pool.getconn()
    assert await within(60, lambda: count_connections(own_database_url) == 1)
    await pool.putconn(held)
    assert await within(60, lambda: count_connections(own_database_url) == 0)


async def test_a_pool_can_be_opened_again(own_database_url: str) -> None:
    for _ in range(2):
        async with open_pool(own_database_url, database_pool_size=1) as pool:
            await ask(pool)


_dice = random.Random(20261122)  # noqa: S311  no secret


async def _request(dependency: Callable[[], AsyncIterator[Connection]]) -> None:
    async with asynccontextmanager(dependency)() as conn:
        await conn.execute("SELECT pg_sleep(%s)", [_dice.uniform(0, 0.01)])


async def _cancel(request: "asyncio.Task[None]", times: int) -> None:
    await asyncio.sleep(_dice.uniform(0, 0.03))
    for _ in range(times):
        request.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("times", [1, 3], ids=["once", "again while it cleans up"])
async def test_a_thousand_cancelled_requests_leave_the_pool_whole(times: int, own_database_url: str) -> None:
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    async with open_pool(own_database_url, database_pool_size=3, database_max_overflow=3) as pool:
        for round_number in range(20):
            requests = [asyncio.create_task(_request(get_db if n % 2 else get_connection)) for n in range(50)]
            cancels = [asyncio.create_task(_cancel(request, times)) for request in requests]
            if round_number % 5 == 4:
                await asyncio.to_thread(cut_connections, own_database_url)
            await asyncio.gather(*requests, *cancels, return_exceptions=True)
        assert len(set(await take_all(pool))) == 6
        assert pool.get_stats()["requests_waiting"] == 0


async def test_a_request_cancelled_while_it_gives_its_connection_back_loses_none(own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=1, database_max_overflow=0) as pool:
        conn = await pool.getconn()
        async with pool._lock:  # as another request may hold it at this moment
            giving_back = asyncio.create_task(pool.putconn(conn))
            await asyncio.sleep(0.01)
            giving_back.cancel()
            with suppress(asyncio.CancelledError):
                await giving_back
        assert len(await take_all(pool)) == 1


async def test_a_request_cancelled_while_dead_connections_are_sorted_out_loses_none(own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=4, database_max_overflow=0) as pool:
        for _ in range(6):
            await take_all(pool)
            cut_connections(own_database_url)
            request = asyncio.create_task(ask(pool))
            for _ in range(_dice.randrange(12)):
                await asyncio.sleep(0)
            request.cancel()
            with suppress(asyncio.CancelledError):
                await request
        assert len(set(await take_all(pool))) == 4
