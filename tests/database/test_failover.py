"""The pool when its old connections lead to a server that takes no changes, and the other way round."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable

import psycopg
import pytest

from app.core.config import Settings
from app.database import Connection, get_connection, get_db
from app.database.errors import translate_database_error
from app.database.pool import DatabasePool
from app.main import create_app
from tests.api.conftest import open_client
from tests.database.pools import backend_pid, cut_connections, open_pool, query, take_all

WRITE = (
    b"INSERT INTO prompts (user_prompt, system_prompt, prompt_hash) VALUES (gen_random_uuid(), '', gen_random_uuid())"
)


class Cluster:
    """A database whose new sessions take no changes, as those of a standby, from `demote` to `promote`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._name = query(url, "SELECT current_database()")

    def demote(self) -> None:
        self.execute(f"ALTER DATABASE {self._name} SET default_transaction_read_only = on")

    def promote(self) -> None:
        self.execute(f"ALTER DATABASE {self._name} RESET default_transaction_read_only")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute("SET default_transaction_read_only = off")
            conn.execute(statement.encode())


@pytest.fixture
def cluster(own_database_url: str) -> Cluster:
    return Cluster(own_database_url)


async def outcome_of_read(pool: DatabasePool) -> str:
    return await _outcome_of(pool, b"SELECT * FROM prompts")


async def outcome_of_write(pool: DatabasePool) -> str:
    return await _outcome_of(pool, WRITE)


async def _outcome_of(pool: DatabasePool, statement: bytes) -> str:
    try:
        async with pool.connection() as conn:
            await conn.execute(statement)
    except psycopg.Error as error:
        return type(translate_database_error(error)).__name__
    return "served"


async def test_one_refused_change_replaces_all_connections_to_a_former_primary(cluster: Cluster) -> None:
    cluster.demote()
    async with open_pool(cluster.url, database_pool_size=5, database_max_overflow=0) as pool:
        before = await take_all(pool)
        cluster.promote()
        assert await outcome_of_write(pool) == "DatabaseUnavailable"
        assert [await outcome_of_write(pool) for _ in range(10)] == ["served"] * 10
        assert not set(await take_all(pool)) & set(before)


async def test_a_connection_in_use_meanwhile_is_replaced_when_it_is_given_back(cluster: Cluster) -> None:
    cluster.demote()
    async with open_pool(cluster.url, database_pool_size=2, database_max_overflow=0) as pool:
        await take_all(pool)
        async with pool.connection() as conn:
            cluster.promote()
            assert await outcome_of_write(pool) == "DatabaseUnavailable"
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await conn.execute(WRITE)
        assert [await outcome_of_write(pool) for _ in range(6)] == ["served"] * 6


@pytest.mark.parametrize("dependency", [get_db, get_connection])
async def test_every_way_to_a_connection_replaces_it(
    dependency: Callable[[], AsyncGenerator[Connection]], cluster: Cluster
) -> None:
    cluster.demote()
    async with open_pool(cluster.url, database_pool_size=1, database_max_overflow=0) as pool:
        await take_all(pool)
        cluster.promote()
        connections = dependency()
        conn = await anext(connections)
        before = await backend_pid(conn)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as raised:
            await conn.execute(WRITE)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connections.athrow(raised.value)
        assert before not in await take_all(pool)


async def test_a_database_that_stays_read_only_is_still_read_from(cluster: Cluster) -> None:
    cluster.demote()
    async with open_pool(cluster.url, database_pool_size=3, database_max_overflow=2) as pool:
        outcomes = Counter(await asyncio.gather(*(outcome_of_write(pool) for _ in range(40))))
        assert outcomes == {"DatabaseUnavailable": 40}
        assert len(set(await take_all(pool))) == 5


async def test_a_statement_that_was_prepared_before_a_migration_fails_once(cluster: Cluster) -> None:
    async with open_pool(cluster.url, database_pool_size=2, database_max_overflow=0) as pool:
        assert [await outcome_of_read(pool) for _ in range(20)] == ["served"] * 20
        cluster.execute("ALTER TABLE prompts ADD note text")
        outcomes = Counter([await outcome_of_read(pool) for _ in range(20)])
        assert set(outcomes) == {"served", "DatabaseUnavailable"}
        assert outcomes["DatabaseUnavailable"] <= 2  # one for each connection


@pytest.mark.usefixtures("patient_health")
async def test_readiness_tells_of_a_database_that_is_read_only_and_finds_the_new_primary(
    cluster: Cluster, redis_url: str
) -> None:
    app = create_app(Settings(log_level="error", database_url=cluster.url, redis_url=redis_url, database_pool_size=2))
    async with app.router.lifespan_context(app), open_client(app) as client:
        assert (await client.get("/health/ready")).status_code == 200
        cluster.demote()
        cut_connections(cluster.url)
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"detail": "The database is read-only, it takes no changes"})
        assert (await client.get("/health")).json()["database"] == "connected"
        assert (await client.get("/api/videos")).status_code == 200
        refused = await client.patch("/api/videos/nobody", json={"title": "A"})
        assert (refused.status_code, refused.json()) == (503, ready.json())
        cluster.promote()
        assert (await client.get("/health/ready")).status_code == 200
        statuses = []
        for _ in range(40):
            statuses.append((await client.patch("/api/videos/nobody", json={"title": "A"})).status_code)
            await asyncio.sleep(0.05)
        assert set(statuses[-10:]) == {404}
