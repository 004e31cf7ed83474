"""The pool while PostgreSQL is away, comes back, or hangs."""

import asyncio
import logging
import sys
from collections import Counter

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.core.errors import DatabaseUnavailable, DatabaseUnreachable
from app.database import pool as pool_module
from app.database.errors import translate_database_error
from app.database.pool import DatabasePool
from tests.conftest import without_password
from tests.database.conftest import StoppableServer
from tests.database.pools import ask, open_pool, take_all, within
from tests.pgbouncer import needs_pgbouncer, run_pgbouncer


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts to connect 0.1 s apart, and given up after 0.2 s: an outage of half a second is a long one."""
    monkeypatch.setattr("psycopg_pool.base.AttemptWithBackoff.INITIAL_DELAY", 0.1)
    monkeypatch.setattr(pool_module, "_RECONNECT_SECONDS", 0.2)


async def outcome_of(pool: DatabasePool) -> str:
    try:
        async with asyncio.timeout(60):
            await ask(pool)
    except psycopg.Error as error:
        return type(translate_database_error(error)).__name__
    except DatabaseUnavailable as error:
        return type(error).__name__
    return "served"


async def test_a_server_that_is_down_at_the_start_is_an_unavailable_database(server: StoppableServer) -> None:
    server.stop()
    async with open_pool(server.url, database_pool_timeout=0.2) as pool:
        with pytest.raises(DatabaseUnreachable, match="cannot be reached"):
            await pool.getconn()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"port": "1"}, "The database cannot be reached, try again"),
        ({"user": "stranger"}, "The database refuses the login of DATABASE_URL"),
        ({"dbname": "nowhere"}, "The database of DATABASE_URL does not exist"),
    ],
)
async def test_a_request_gets_the_reason_at_once_why_no_connection_can_be_opened(
    change: dict[str, str], reason: str, server: StoppableServer
) -> None:
    parameters = {**conninfo_to_dict(server.url), **change}
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**parameters)
    async with open_pool(url, database_pool_timeout=300) as pool, asyncio.timeout(60):
        with pytest.raises(DatabaseUnreachable) as raised:
            await ask(pool)
        assert str(raised.value) == reason


@needs_pgbouncer
async def test_a_pooler_that_offers_no_transactions_is_a_reason(server: StoppableServer) -> None:
    with run_pgbouncer(server.url, pool_mode="statement") as pooler:
        async with open_pool(pooler.url(server.url), database_pool_timeout=300) as pool, asyncio.timeout(60):
            with pytest.raises(DatabaseUnreachable, match="the log of this server has the reason"):
                await ask(pool)


@needs_pgbouncer
async def test_a_pooler_whose_server_is_away_is_one_that_cannot_be_reached(server: StoppableServer) -> None:
    with run_pgbouncer(server.url) as pooler:
        with psycopg.connect(pooler.url(server.url), prepare_threshold=None) as conn:
            conn.execute("SELECT 1")  # the pooler takes a login by itself now
        server.stop()
        settings = {"database_connect_timeout": 2, "database_pool_timeout": 300}
        async with open_pool(pooler.url(server.url), **settings) as pool, asyncio.timeout(60):
            with pytest.raises(DatabaseUnreachable, match="cannot be reached"):
                await ask(pool)


async def test_a_thousand_requests_in_an_outage_are_refused_with_no_more_attempts_than_one_causes(
    server: StoppableServer,
) -> None:
    async with open_pool(server.url, database_pool_size=1, database_max_overflow=0, database_max_waiting=100) as pool:
        await take_all(pool)
        server.stop()
        assert await outcome_of(pool) == "DatabaseUnreachable"
        before = pool.get_stats()["connections_num"]
        outcomes = Counter(await asyncio.gather(*(outcome_of(pool) for _ in range(1000))))
        assert outcomes == {"DatabaseUnreachable": 1000}
        assert pool.get_stats()["connections_num"] - before <= 4
        server.start()
        assert await outcome_of(pool) == "served"


async def test_requests_wait_for_connections_in_use_while_no_other_can_be_opened(server: StoppableServer) -> None:
    template = make_conninfo(server.url, dbname="template1")
    async with open_pool(server.url, database_pool_size=2, database_max_overflow=1) as pool:
        assert await within(60, lambda: pool.get_stats()["pool_available"] == 2)
        async with (
            await psycopg.AsyncConnection.connect(template, autocommit=True) as other,
            pool.connection(),
            pool.connection(),
        ):
            await other.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
            request = asyncio.create_task(ask(pool))
            try:
                await asyncio.sleep(2)
                assert not request.done()
            finally:
                await other.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
        await request


@pytest.mark.usefixtures("_hurried")
async def test_a_server_that_comes_late_serves_the_request_that_waits(server: StoppableServer) -> None:
    server.stop()
    async with open_pool(server.url, database_pool_timeout=30) as pool:
        request = asyncio.create_task(ask(pool))
        await asyncio.sleep(1)
        server.start()
        async with asyncio.timeout(60):
            await request


@pytest.mark.usefixtures("_hurried")
async def test_a_pool_that_nobody_asks_is_full_again_after_an_outage(server: StoppableServer) -> None:
    server.stop()
    async with open_pool(server.url, database_pool_size=3) as pool:
        await asyncio.sleep(1)
        server.start()
        assert await within(60, lambda: pool.get_stats()["pool_available"] >= 3)


async def test_a_restart_that_nobody_noticed_does_not_delay_the_next_request(server: StoppableServer) -> None:
    async with open_pool(server.url, database_pool_size=5, database_max_overflow=5) as pool:
        before = await take_all(pool)
        server.stop()
        server.start()
        async with asyncio.timeout(60):
            assert not set(await take_all(pool)) & set(before)


async def test_a_restart_under_load_costs_unavailable_answers_only(server: StoppableServer) -> None:
    outcomes: Counter[str] = Counter()
    async with open_pool(server.url, database_pool_timeout=0.5) as pool:

        async def send_requests() -> None:
            while not over.is_set():
                outcomes[await outcome_of(pool)] += 1
                await asyncio.sleep(0.01)

        over = asyncio.Event()
        load = [asyncio.create_task(send_requests()) for _ in range(30)]
        assert await within(60, lambda: outcomes["served"] > 100)
        await asyncio.to_thread(server.stop)
        assert await within(60, lambda: outcomes["DatabaseUnreachable"] > 30)
        server.start()
        outcomes["served"] = 0
        assert await within(60, lambda: outcomes["served"] > 100)
        over.set()
        await asyncio.gather(*load)
        assert outcomes.keys() <= {"served", "DatabaseUnavailable", "DatabaseUnreachable"}
        assert len(set(await take_all(pool))) == 15


@pytest.mark.usefixtures("_hurried")
async def test_an_outage_is_one_line_with_its_reason_and_its_end_another(
    server: StoppableServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="app.database.pool")
    server.stop()
    url = server.url
    async with open_pool(url, database_pool_size=3) as pool:
        assert await within(60, lambda: caplog.messages)
        await asyncio.sleep(0.5)
        server.start()
        await ask(pool)
    said = [record.getMessage() for record in caplog.records if record.name == "app.database.pool"]
    place = without_password(url)
    assert said == [
        f"Cannot connect to {place}: Connection refused; trying again every second",
        "PostgreSQL accepts connections again",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the server's processes below /proc")
async def test_a_frozen_server_holds_no_request_beyond_its_time_limit(server: StoppableServer) -> None:
    async with open_pool(server.url, database_pool_size=2, database_max_overflow=0) as pool:
        before = await take_all(pool)
        server.freeze()
        try:
            requests = [asyncio.create_task(asyncio.wait_for(ask(pool), 0.1)) for _ in range(4)]
            await asyncio.wait(requests, timeout=0.5)
        finally:
            server.thaw()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert all(isinstance(answer, TimeoutError) for answer in answers)
        assert set(await take_all(pool)) == set(before)
