"""What the tests of the pool share: a pool for a while, a server that may be stopped, requests to send at both."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from app.core.config import Settings
from app.database import Connection, close_db, get_pool, init_db
from app.database.pool import DatabasePool


@asynccontextmanager
async def open_pool(url: str, **settings: Any) -> AsyncIterator[DatabasePool]:
    await init_db(Settings(database_url=url, **settings))
    try:
        yield get_pool()
    finally:
        await close_db()


async def ask(pool: DatabasePool, seconds: float = 0) -> int:
    """Take a connection for as long as a statement of so many seconds runs, and return its process id."""
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT pg_backend_pid() FROM pg_sleep(%s)", [seconds])
        (pid,) = await anext(cursor)
        return int(pid)


async def take_all(pool: DatabasePool) -> list[int]:
    """Check out as many connections as the pool may have, all at once, use each, and return their process ids."""
    connections = [await pool.getconn(timeout=60) for _ in range(pool.max_size)]
    pids = [await backend_pid(conn) for conn in connections]
    for conn in connections:
        await pool.putconn(conn)
    return pids


async def backend_pid(conn: Connection) -> int:
    (pid,) = await anext(await conn.execute("SELECT pg_backend_pid()"))
    return int(pid)


def query(url: str, statement: str) -> Any:
    """Return the first value of the first row."""
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(statement.encode()).fetchone()
    return row[0] if row else None


def count_connections(url: str) -> int:
    """Count the pool's connections to the database at `url`, without the one that counts."""
    others = "datname = current_database() AND application_name = 'videomoments'"
    return int(query(url, f"SELECT count(*) FROM pg_stat_activity WHERE {others}"))


def cut_connections(url: str) -> None:
    """End every other session of the database, and return when their processes are gone."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    query(url, f"SELECT count(pg_terminate_backend(pid, 5000)) {others}")


async def within(seconds: float, condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
