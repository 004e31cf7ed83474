"""The dependencies of endpoints: what is committed, what is rolled back, and that the connection always comes back."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psycopg
import pytest

from app.core.errors import DatabaseUnavailable
from app.database import Connection, get_connection, get_db
from app.database.pool import DatabasePool
from tests.database.pools import ask, open_pool, query

_write = asynccontextmanager(get_db)
_read = asynccontextmanager(get_connection)


@pytest.fixture
async def pool(own_database_url: str) -> AsyncIterator[DatabasePool]:
    """A pool of one connection: whoever does not give it back stops everybody else."""
    async with open_pool(
        own_database_url, database_pool_size=1, database_max_overflow=0, database_pool_timeout=2
    ) as pool:
        yield pool


async def insert(conn: Connection, *identifiers: str) -> None:
    async with conn.transaction():
        for identifier in identifiers:
            await conn.execute("INSERT INTO videos (identifier, cloud_url) VALUES (%s, 'file:///x')", [identifier])


async def insert_and_fail(identifier: str) -> None:
    async with _write() as conn:
        await insert(conn, identifier)
        raise ZeroDivisionError


async def insert_all(*identifiers: str) -> None:
    async with _write() as conn:
        for identifier in identifiers:
            await insert(conn, identifier)


async def insert_and_lose_the_connection(url: str) -> None:
    async with _write() as conn:
        await insert(conn, "talk")
        query(url, f"SELECT pg_terminate_backend({conn.info.backend_pid}, 5000)")


def stored(url: str) -> str | None:
    found: str | None = query(url, "SELECT string_agg(identifier, ' ' ORDER BY id) FROM videos")
    return found


async def test_success_commits_and_gives_the_connection_back(pool: DatabasePool, own_database_url: str) -> None:
    async with _write() as conn:
        await insert(conn, "talk")
        assert stored(own_database_url) is None
    assert stored(own_database_url) == "talk"
    await ask(pool)


async def test_an_error_rolls_back_and_gives_the_connection_back(pool: DatabasePool, own_database_url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        await insert_and_fail("talk")
    assert stored(own_database_url) is None
    await ask(pool)


async def test_a_refused_statement_rolls_back_everything(pool: DatabasePool, own_database_url: str) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        await insert_all("talk", "talk")
    assert stored(own_database_url) is None
    await ask(pool)


async def test_a_nested_transaction_is_undone_alone(pool: DatabasePool, own_database_url: str) -> None:
    async with _write() as conn:
        await insert(conn, "one")
        with pytest.raises(psycopg.errors.UniqueViolation):
            await insert(conn, "two", "one")
        await insert(conn, "three")
    assert stored(own_database_url) == "one three"


async def test_a_commit_that_cannot_happen_is_an_error(pool: DatabasePool, own_database_url: str) -> None:
    with pytest.raises(psycopg.OperationalError):
        await insert_and_lose_the_connection(own_database_url)
    assert stored(own_database_url) is None
    await ask(pool)


async def test_a_reader_has_no_transaction(pool: DatabasePool) -> None:
    async with _read() as conn:
        await conn.execute("SELECT 1")
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_a_reader_gives_its_connection_back_after_an_error(pool: DatabasePool) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with _read() as conn:
            await conn.execute("SELECT 1 / 0")
    await ask(pool)


@pytest.mark.parametrize("dependency", [_write, _read])
async def test_without_a_pool_the_database_is_unavailable(
    dependency: Callable[[], AbstractAsyncContextManager[Connection]],
) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with dependency():
            pass
