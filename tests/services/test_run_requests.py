"""Enqueueing runs: round trips, and identifiers of runs of the same millisecond."""

import asyncio
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.errors import AlreadyRunning
from app.database import Connection, Database, get_connection, open_async_connection
from app.database.pool import PooledConnection
from app.models.runs import RunRequest
from app.models.stages import RunType, Stage
from app.services.queue import enqueue_run
from app.services.run_requests import RunStarter
from app.storage import open_storage
from tests.database.pools import open_pool, query
from tests.factories import make_video
from tests.runs import claim_run, finish_run

_MILLISECOND = datetime(2026, 5, 4, 12, tzinfo=UTC)


class _StoppedClock(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_StoppedClock":
        return cls.fromtimestamp(_MILLISECOND.timestamp(), tz)


async def _make_starts(settings: Settings, tmp_path: Path) -> RunStarter:
    """Return what accepts runs, and make the video `talk` with a file."""
    file = tmp_path / "media" / "talk.mp4"
    file.parent.mkdir()
    file.write_bytes(b"film")
    async with open_async_connection(settings) as conn:
        await make_video(conn, identifier="talk", cloud_url=file.as_uri(), audio_codec="aac")

    async def skip_notify(identifier: str, stage: Stage) -> None:
        pass

    return RunStarter(Database(get_connection), open_storage(settings), Redis(), settings, skip_notify)


async def test_a_run_is_accepted_in_two_round_trips(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips, wait = 0, PooledConnection.wait

    async def count_trips(self: PooledConnection, *args: Any, **options: Any) -> Any:
        nonlocal trips
        trips += 1
        return await wait(self, *args, **options)

    settings = Settings(database_url=own_database_url, storage_url=(tmp_path / "media").as_uri())
    starts = await _make_starts(settings, tmp_path)
    async with open_pool(own_database_url) as pool:
        await pool.wait()
        monkeypatch.setattr(PooledConnection, "wait", count_trips)
        await starts.start_audio_extraction("talk")
    assert trips == 2


async def test_of_two_concurrent_requests_one_is_accepted(own_database_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=own_database_url, storage_url=(tmp_path / "media").as_uri())
    starts = await _make_starts(settings, tmp_path)
    async with open_pool(own_database_url):
        outcomes = await asyncio.gather(
            *(starts.start_audio_extraction("talk") for _ in range(8)), return_exceptions=True
        )
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyRunning) for outcome in outcomes) == 7
    assert query(own_database_url, "SELECT count(*) FROM pipeline_history") == 1


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_runs_of_the_same_millisecond_get_identifiers_of_their_own(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch, in_transaction: bool
) -> None:
    monkeypatch.setattr("app.services.queue.datetime", _StoppedClock)
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        await make_video(conn, identifier="talk")
        first = await enqueue_run(conn, "talk", RunType.AUDIO, RunRequest())
        await finish_run(conn, await claim_run(conn, first))
        second = await _accept_again(conn, in_transaction)
    milliseconds = int(_MILLISECOND.timestamp() * 1000)
    assert (first, second) == (f"pipeline:talk:{milliseconds}", f"pipeline:talk:{milliseconds + 1}")


async def _accept_again(conn: Connection, in_transaction: bool) -> str:
    if not in_transaction:
        return await enqueue_run(conn, "talk", RunType.AUDIO, RunRequest())
    async with conn.transaction():
        return await enqueue_run(conn, "talk", RunType.AUDIO, RunRequest())
