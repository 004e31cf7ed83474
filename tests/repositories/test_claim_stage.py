"""The function pipeline.claim_stage: what it claims, its limit, and claims at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.repositories import VideoRepository
from tests.repositories.test_stage_queue import until_it_waits
from tests.runs import enqueue_run

_STALLED_AFTER = 30.0
_STARTED_AT = datetime(2026, 11, 22, 12)
_FULL = ("full", *[None] * 12)


async def add_run(conn: Connection, video: str = "talk", **columns: Any) -> str:
    """Accept a run over a new video, which waits at its first stage."""
    await VideoRepository(conn).create(identifier=video, cloud_url="file:///video.mp4")
    return await enqueue_run(conn, video, started_at=_STARTED_AT, **columns)


async def claim(
    conn: Connection, run: str, stage: str = "download", worker: str = "one", most: int | None = None
) -> tuple[Any, ...] | None:
    cursor = await conn.execute(
        "SELECT * FROM pipeline.claim_stage(%s, %s, %s, %s, %s)", (run, stage, worker, _STALLED_AFTER, most)
    )
    return await cursor.fetchone()


async def verdict(conn: Connection, run: str, worker: str = "one", most: int | None = None) -> str | None:
    row = await claim(conn, run, worker=worker, most=most)
    return row[0] if row else None


async def stall(conn: Connection, seconds: float = 31) -> None:
    """Make the last heartbeats of all owners older."""
    await conn.execute("UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - make_interval(secs => %s)", (seconds,))


async def fetch_runs(conn: Connection, columns: str) -> list[tuple[Any, ...]]:
    cursor = await conn.execute(f"SELECT {columns} FROM pipeline.runs ORDER BY run_id".encode())
    return await cursor.fetchall()


@asynccontextmanager
async def connections(url: str, number: int) -> AsyncIterator[list[Connection]]:
    async with AsyncExitStack() as stack:
        settings = Settings(database_url=url)
        yield [await stack.enter_async_context(open_async_connection(settings)) for _ in range(number)]


async def test_a_stage_that_waits_is_claimed_with_its_run(conn: Connection) -> None:
    run = await add_run(conn)
    row = await claim(conn, run)
    assert row
    cursor = await conn.execute("SELECT history.id, video_id FROM pipeline_history AS history")
    run_id, video_id = await anext(cursor)
    assert row[:7] == ("claimed", run_id, run, video_id, "talk", "full", "")
    assert row[7]["max_moments"] == 10
    assert row[8:] == ({}, "download", 1, "one", _STARTED_AT.replace(tzinfo=UTC).timestamp())
    ((owner, attempt, age),) = await fetch_runs(
        conn, "owner, attempt, extract(epoch FROM clock_timestamp() AT TIME ZONE 'utc' - heartbeat_at)"
    )
    assert (owner, attempt) == ("one", 1)
    assert 0 <= age < 10


async def test_a_stage_with_an_owner_is_not_claimed_until_that_is_stalled(conn: Connection) -> None:
    run = await add_run(conn)
    assert await verdict(conn, run) == "claimed"
    await stall(conn, 20)
    assert await claim(conn, run, worker="two") is None
    await stall(conn, 20)
    row = await claim(conn, run, worker="two")
    assert row
    assert row[9:12] == ("download", 2, "two")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pipeline.runs SET stage = 'audio'",
        "UPDATE pipeline_history SET status = 'failed'",
        "UPDATE pipeline_history SET identifier = 'another'",
        "DELETE FROM videos",
    ],
)
async def test_what_is_not_at_the_stage_is_not_claimed(conn: Connection, change: str) -> None:
    run = await add_run(conn)
    await conn.execute(change.encode())
    assert await claim(conn, run) is None
    assert await claim(conn, run, most=1) is None


async def test_at_a_limit_the_run_waits_until_a_stage_is_released(conn: Connection) -> None:
    first, second, third = [await add_run(conn, video) for video in ("one", "two", "three")]
    assert await verdict(conn, first, most=2) == "claimed"
    assert await verdict(conn, second, most=2) == "claimed"
    assert await claim(conn, third, most=2) == _FULL
    waiting = {"download": {"status": "waiting"}}
    assert await fetch_runs(conn, "stages, owner, attempt") == [({}, "one", 1), ({}, "one", 1), (waiting, None, 0)]
    await conn.execute("UPDATE pipeline.runs SET owner = NULL WHERE run_id = (SELECT min(run_id) FROM pipeline.runs)")
    row = await claim(conn, third, most=2)
    assert row
    assert (row[0], row[8]) == ("claimed", waiting)


async def test_a_limit_counts_neither_other_stages_nor_stalled_owners(conn: Connection) -> None:
    first, second, third = [await add_run(conn, video) for video in ("one", "two", "three")]
    assert await verdict(conn, first, most=1) == "claimed"
    await stall(conn)
    assert await verdict(conn, second, most=1) == "claimed"
    assert await verdict(conn, third, most=1) == "full"
    await conn.execute("UPDATE pipeline.runs SET stage = 'audio' WHERE attempt > 0")
    assert await verdict(conn, third, most=1) == "claimed"


async def test_a_stalled_stage_does_not_count_itself(conn: Connection) -> None:
    run = await add_run(conn)
    assert await verdict(conn, run, most=1) == "claimed"
    await stall(conn)
    assert await verdict(conn, run, "two", most=1) == "claimed"


async def test_a_limit_of_none_claims_nothing(conn: Connection) -> None:
    assert await verdict(conn, await add_run(conn), most=0) == "full"


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        ('{"download": {"status": "pending"}}', {"download": {"status": "waiting"}}),
        ('{"download": {"status": "processing", "result": {"bytes": 7}}}', None),
        ('{"download": {"status": "waiting", "started_at": 1}}', None),
    ],
)
async def test_only_a_record_that_is_pending_becomes_waiting(
    conn: Connection, stored: str, kept: dict[str, Any] | None
) -> None:
    run = await add_run(conn)
    await conn.execute("UPDATE pipeline.runs SET stages = %s", (stored,))
    ((before,),) = await fetch_runs(conn, "stages")
    assert await verdict(conn, run, most=0) == "full"
    assert await fetch_runs(conn, "stages") == [(kept or before,)]


@pytest.mark.parametrize("most", [None, 5])
async def test_of_two_claims_of_one_run_at_once_one_succeeds(own_database_url: str, most: int | None) -> None:
    async with connections(own_database_url, 3) as (first, second, watcher):
        run = await add_run(first)
        async with first.transaction():
            assert await verdict(first, run, "one", most) == "claimed"
            claiming = asyncio.create_task(verdict(second, run, "two", most))
            await until_it_waits(watcher, second)
        assert await claiming is None
        assert await fetch_runs(watcher, "owner, attempt") == [("one", 1)]


async def test_many_claims_of_one_run_at_once_have_one_winner(own_database_url: str) -> None:
    async with connections(own_database_url, 8) as workers:
        run = await add_run(workers[0])
        verdicts = await asyncio.gather(*(verdict(conn, run, str(number)) for number, conn in enumerate(workers)))
        assert sorted(verdicts, key=str) == [*[None] * 7, "claimed"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pipeline_history SET status = 'cancelled'",
        "DELETE FROM videos",
    ],
)
async def test_a_run_that_ends_while_a_claim_waits_for_it_is_not_claimed(own_database_url: str, change: str) -> None:
    async with connections(own_database_url, 3) as (conn, worker, watcher):
        run = await add_run(conn)
        async with conn.transaction():
            await conn.execute("UPDATE pipeline.runs SET cancel_requested = true")
            await conn.execute(change.encode())
            claiming = asyncio.create_task(claim(worker, run, most=5))
            await until_it_waits(watcher, worker)
        assert await claiming is None
        assert all(row == (None, 0) for row in await fetch_runs(watcher, "owner, attempt"))


async def test_a_run_that_goes_on_while_a_claim_waits_for_it_is_not_claimed(own_database_url: str) -> None:
    async with connections(own_database_url, 3) as (conn, worker, watcher):
        run = await add_run(conn)
        await claim(conn, run)
        await stall(conn)
        async with conn.transaction():
            await conn.execute("UPDATE pipeline.runs SET stage = 'audio', owner = NULL, attempt = 0")
            claiming = asyncio.create_task(claim(worker, run, worker="two"))
            await until_it_waits(watcher, worker)
        assert await claiming is None
        assert await fetch_runs(watcher, "stage, owner, attempt") == [("audio", None, 0)]


async def test_an_owner_that_is_alive_again_while_a_claim_waits_keeps_its_stage(own_database_url: str) -> None:
    async with connections(own_database_url, 3) as (conn, worker, watcher):
        run = await add_run(conn)
        await claim(conn, run)
        await stall(conn)
        async with conn.transaction():
            await conn.execute("UPDATE pipeline.runs SET heartbeat_at = clock_timestamp() AT TIME ZONE 'utc'")
            claiming = asyncio.create_task(claim(worker, run, worker="two"))
            await until_it_waits(watcher, worker)
        assert await claiming is None
        assert await fetch_runs(watcher, "owner, attempt") == [("one", 1)]


async def test_claims_of_different_runs_at_once_keep_the_limit(own_database_url: str) -> None:
    async with connections(own_database_url, 3) as (first, second, watcher):
        runs = [await add_run(first, video) for video in ("one", "two")]
        async with first.transaction():
            assert await verdict(first, runs[0], most=1) == "claimed"
            claiming = asyncio.create_task(verdict(second, runs[1], "two", most=1))
            await until_it_waits(watcher, second)
        assert await claiming == "full"


async def test_claims_of_different_stages_and_of_no_limit_do_not_wait_for_each_other(own_database_url: str) -> None:
    async with connections(own_database_url, 2) as (first, second):
        runs = [await add_run(first, video) for video in ("one", "two", "three")]
        await first.execute(
            "UPDATE pipeline.runs SET stage = 'audio' WHERE run_id = (SELECT max(run_id) FROM pipeline.runs)"
        )
        async with first.transaction(), asyncio.timeout(20):
            assert await verdict(first, runs[0], most=1) == "claimed"
            assert await verdict(second, runs[1]) == "claimed"
            row = await claim(second, runs[2], "audio", most=1)
            assert row
            assert row[0] == "claimed"


async def test_a_locked_run_delays_no_claim_of_another(own_database_url: str) -> None:
    async with connections(own_database_url, 4) as (conn, first, second, watcher):
        runs = [await add_run(conn, video) for video in ("one", "two")]
        async with conn.transaction():
            await conn.execute(
                "UPDATE pipeline.runs SET last_error = '' WHERE run_id = (SELECT min(run_id) FROM pipeline.runs)"
            )
            waiting = asyncio.create_task(verdict(first, runs[0], most=1))
            await until_it_waits(watcher, first)
            async with asyncio.timeout(20):
                assert await verdict(second, runs[1], most=1) == "claimed"
        assert await waiting == "full"
