"""Reads that share a statement."""

import asyncio
from collections.abc import AsyncGenerator

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable, DatabaseUnreachable
from app.core.logging import request_id
from app.database import BatchLoader, Connection


class Loader:
    """Stands for the database: answers each key with its own text when it is let, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.open = 0

    async def load(self, conn: Connection, keys: list[str]) -> dict[str, str]:
        self.asked.append(keys)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {key: f"found {key}" for key in keys if key != "unknown"}

    async def open_connection(self) -> AsyncGenerator[Connection]:
        self.open += 1
        try:
            yield None  # type: ignore[misc]  # the loader needs no connection
        finally:
            self.open -= 1


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def batches(loader: Loader) -> BatchLoader[str, str]:
    return BatchLoader(loader.open_connection, loader.load, Settings())


@pytest.fixture
def hasty_batches(loader: Loader) -> BatchLoader[str, str]:
    """Those that wait for a third of a second."""
    return BatchLoader(
        loader.open_connection, loader.load, Settings(database_pool_timeout=0.3, database_max_waiting=2000)
    )


async def test_a_read_that_is_alone_is_sent_at_once(loader: Loader, batches: BatchLoader[str, str]) -> None:
    assert await batches.get("a") == "found a"
    assert loader.asked == [["a"]]


async def test_reads_at_the_same_time_share_statements(loader: Loader, batches: BatchLoader[str, str]) -> None:
    keys = [f"k{number}" for number in range(50)]
    assert await asyncio.gather(*map(batches.get, keys)) == [f"found {key}" for key in keys]
    assert len(loader.asked) <= 3
    assert sorted(key for keys in loader.asked for key in keys) == sorted(keys)


async def test_one_key_is_asked_once_in_a_statement(loader: Loader, batches: BatchLoader[str, str]) -> None:
    assert await asyncio.gather(*(batches.get("a") for _ in range(50))) == ["found a"] * 50
    assert all(keys == ["a"] for keys in loader.asked)


async def test_a_statement_has_a_bounded_number_of_keys(loader: Loader, batches: BatchLoader[str, str]) -> None:
    await asyncio.gather(*(batches.get(f"k{number}") for number in range(1000)))
    assert max(map(len, loader.asked)) == 100


async def test_what_does_not_exist_is_none(batches: BatchLoader[str, str]) -> None:
    assert [*await asyncio.gather(batches.get("a"), batches.get("unknown"))] == ["found a", None]


async def test_a_read_begins_after_it_was_asked_for(loader: Loader, batches: BatchLoader[str, str]) -> None:
    loader.gate.clear()
    early = [asyncio.create_task(batches.get("a")) for _ in range(2)]
    await _let_run()
    statements = len(loader.asked)
    late = asyncio.create_task(batches.get("a"))
    await _let_run()
    loader.gate.set()
    await asyncio.gather(*early, late)
    assert len(loader.asked) == statements + 1


async def test_a_failure_reaches_all_who_share_it_and_nobody_later(
    loader: Loader, batches: BatchLoader[str, str]
) -> None:
    loader.error = psycopg.OperationalError("gone")
    results = await asyncio.gather(*(batches.get(f"k{n}") for n in range(10)), return_exceptions=True)
    assert all(isinstance(result, psycopg.OperationalError) for result in results)
    loader.error = None
    assert await batches.get("a") == "found a"
    assert loader.open == 0


async def test_who_goes_away_takes_nobody_with_him(loader: Loader, batches: BatchLoader[str, str]) -> None:
    loader.gate.clear()
    requests = [asyncio.create_task(batches.get(f"k{number}")) for number in range(10)]
    await _let_run()
    for request in requests[::2]:
        request.cancel()
    loader.gate.set()
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert [result for result in results if isinstance(result, str)] == [f"found k{n}" for n in range(1, 10, 2)]
    assert loader.open == 0


async def test_nobody_waits_longer_than_for_a_connection(loader: Loader, hasty_batches: BatchLoader[str, str]) -> None:
    loader.gate.clear()
    results = await asyncio.gather(*(hasty_batches.get(f"k{n}") for n in range(500)), return_exceptions=True)
    assert {type(result) for result in results} == {DatabaseUnavailable}
    assert len(loader.asked) <= 2
    loader.gate.set()
    assert await hasty_batches.get("a") == "found a"


async def test_no_more_wait_than_may_wait_for_a_connection(
    loader: Loader, hasty_batches: BatchLoader[str, str]
) -> None:
    loader.gate.clear()
    results = await asyncio.gather(*(hasty_batches.get(f"k{n}") for n in range(2100)), return_exceptions=True)
    assert [type(result) for result in results[2000:]] == [DatabaseUnavailable] * 100
    loader.gate.set()


async def test_a_shared_statement_belongs_to_no_request(loader: Loader, batches: BatchLoader[str, str]) -> None:
    seen: list[str] = []

    async def load(conn: Connection, keys: list[str]) -> dict[str, str]:
        seen.append(request_id.get())
        return {}

    request_id.set("mine")
    await BatchLoader(loader.open_connection, load, Settings()).get("a")
    assert seen == ["-"]


async def _let_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_outage_fails_all_who_wait_at_once(loader: Loader) -> None:
    batches = BatchLoader(loader.open_connection, loader.load, Settings())
    loader.error = DatabaseUnreachable("The database cannot be reached, try again")
    answers = await asyncio.gather(*(batches.get(str(number)) for number in range(500)), return_exceptions=True)
    assert answers == [loader.error] * 500
    assert len(loader.asked) <= 2
