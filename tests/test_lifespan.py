"""What the application does when it starts and stops, with its servers up, away, hanging or late."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from app.ai.registry import DEFAULT_MODELS
from app.core.config import Settings
from app.database import get_pool
from app.embedded import EmbeddedPostgres, EmbeddedValkey
from app.main import create_app
from tests.api.conftest import open_client
from tests.conftest import Databases, migrate
from tests.database.pools import count_connections, within
from tests.serving import free_port

NOWHERE = "127.0.0.1:1"
UP = {"status": "healthy", "redis": "connected", "database": "connected"}


def _find_health_checks() -> list[asyncio.Task[Any]]:
    coroutines = {task: task.get_coro() for task in asyncio.all_tasks()}
    return [
        task for task, coroutine in coroutines.items() if "SharedHealthCheck" in getattr(coroutine, "__qualname__", "")
    ]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[AsyncClient]:
    """A client of an application inside its lifespan."""
    app = create_app(Settings(log_level="error", **settings))
    async with app.router.lifespan_context(app), open_client(app) as client:
        yield client


async def eventually(client: AsyncClient, path: str, expected: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while (answer := (await client.get(path)).json()) != expected:
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.05)


@pytest.mark.usefixtures("patient_health")
async def test_both_servers_up_is_healthy_and_ready(own_database_url: str, redis_url: str) -> None:
    async with running(database_url=own_database_url, redis_url=redis_url) as client:
        await eventually(client, "/health", UP)
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200


async def test_it_starts_with_both_servers_away_and_says_so() -> None:
    async with running(database_url=f"postgresql://u@{NOWHERE}/x", redis_url=f"redis://{NOWHERE}/0") as client:
        answer = await client.get("/health")
        assert answer.status_code == 200
        assert answer.json() == {"status": "healthy", "redis": "disconnected", "database": "disconnected"}
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"detail": "The database cannot be reached, try again"})
        assert (await client.get("/health/live")).status_code == 200


async def test_servers_that_come_late_are_found_and_prepared(tmp_path: Path) -> None:
    database_port, redis_port = free_port(), free_port()
    postgres = EmbeddedPostgres(tmp_path / "postgres", database_port)
    valkey = EmbeddedValkey(tmp_path / "valkey", redis_port)
    with postgres, valkey:
        database_url, redis_url = Databases(postgres.url).create(), valkey.url
        migrate(database_url)
    async with running(database_url=database_url, redis_url=redis_url, database_pool_timeout=1) as client:
        assert (await client.get("/health")).json()["database"] == "disconnected"
        with postgres, valkey:
            await eventually(client, "/health", UP)
            assert (await client.get("/api/videos")).json() == []
            async with Redis.from_url(redis_url, decode_responses=True) as redis:
                await _until_prepared(redis)


async def test_the_registry_and_the_consumer_group_are_made_once(own_database_url: str, redis_url: str) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushdb()
        for _ in range(2):
            async with running(database_url=own_database_url, redis_url=redis_url):
                await _until_prepared(redis)
        assert await redis.scard("model:config:_keys") == len(DEFAULT_MODELS)
        (group,) = await redis.xinfo_groups("pipeline:requests")
        assert (group["name"], group["last-delivered-id"]) == ("pipeline_workers", "0-0")


async def test_no_connection_is_left_after_shutdown(own_database_url: str, redis_url: str) -> None:
    async with running(database_url=own_database_url, redis_url=redis_url) as client:
        await client.get("/health")
    assert await within(60, lambda: count_connections(own_database_url) == 0)  # a session ends a moment later


@pytest.mark.usefixtures("patient_health")
async def test_health_does_not_wait_for_a_drained_pool(own_database_url: str, redis_url: str) -> None:
    settings = {"database_pool_size": 1, "database_max_overflow": 0, "database_pool_timeout": 300}
    async with (
        running(database_url=own_database_url, redis_url=redis_url, **settings) as client,
        get_pool().connection(),
    ):
        await eventually(client, "/health", UP)  # the pool's only connection is taken until the end of the block
        assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP to make a server hang")
async def test_health_does_not_wait_for_servers_that_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.redis._ANSWER_SECONDS", 300.0)
    with EmbeddedPostgres(tmp_path / "postgres") as postgres, EmbeddedValkey(tmp_path / "valkey") as valkey:
        async with running(database_url=postgres.url, redis_url=valkey.url) as client:
            await eventually(client, "/health", UP)
            with psycopg.connect(postgres.url, autocommit=True) as conn:
                rows = conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'videomoments'")
                pids = [postgres.pid, valkey.pid, *(row[0] for row in rows.fetchall())]
            _send(signal.SIGSTOP, pids)
            try:
                answer = (await client.get("/health")).json()
                assert len(_find_health_checks()) == 2  # they still wait for their servers
                assert answer == {"status": "healthy", "redis": "disconnected", "database": "disconnected"}
            finally:
                _send(signal.SIGCONT, pids)
            await eventually(client, "/health", UP)


@pytest.mark.usefixtures("patient_health")
async def test_a_database_behind_the_code_is_not_ready(databases: Databases, redis_url: str) -> None:
    url = databases.create()
    migrate(url, "0001")
    async with running(database_url=url, redis_url=redis_url) as client:
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert "revision 0001" in answer.json()["detail"]
        assert "alembic upgrade head" in answer.json()["detail"]
        migrate(url)
        assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.usefixtures("patient_health")
async def test_a_database_never_migrated_is_not_ready_and_answers_503(databases: Databases, redis_url: str) -> None:
    async with running(database_url=databases.create(), redis_url=redis_url) as client:
        assert (await client.get("/health/ready")).status_code == 503
        answer = await client.get("/api/videos")
        assert answer.status_code == 503
        assert "alembic upgrade head" in answer.json()["detail"]


@pytest.mark.usefixtures("patient_health")
async def test_a_database_ahead_of_the_code_is_not_ready(own_database_url: str, redis_url: str) -> None:
    with psycopg.connect(own_database_url) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    async with running(database_url=own_database_url, redis_url=redis_url) as client:
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert "9999" in answer.json()["detail"]


def _send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, number)


async def _until_prepared(redis: Redis) -> None:
    deadline = time.monotonic() + 60
    while not (await redis.scard("model:config:_keys") and await redis.exists("pipeline:requests")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
