"""What the rocket starts, and why it may not."""

import asyncio
import time
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr
from redis.asyncio import Redis

from app.core.config import Settings
from app.database import Connection, close_db, init_db, open_async_connection
from app.main import create_app
from app.models.runs import RunRequest
from app.models.stages import RunType
from app.repositories.runs import RunRepository
from tests.api.conftest import change_settings, open_client
from tests.api.starting import (
    BUSY,
    find_run,
    outcome,
    start_full,
)
from tests.conftest import Statements
from tests.factories import make_video
from tests.runs import enqueue_run


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def test_a_pipeline_starts_with_what_was_asked(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    await make_video(conn, identifier="talk")
    answer = await start_full(client, refinement_prompt="Shorter")
    assert answer.status_code == 200
    identifier = answer.json()["request_id"]
    assert answer.json() == {
        "request_id": identifier,
        "video_id": "talk",
        "status": "queued",
        "message": "Pipeline started successfully",
    }
    assert identifier.startswith("pipeline:talk:")
    assert outcome(await start_full(client)) == (409, BUSY)
    run = await find_run(conn)
    assert (run.identifier, run.type) == (identifier, RunType.FULL)
    assert run.request == RunRequest(
        generation_model="minimax",
        refinement_model="minimax",
        refinement_prompt="Shorter",
        override_existing_moments=False,
        override_existing_refinement=False,
        override_existing_clips=False,
    )


async def test_each_model_and_temperature_can_be_said_by_itself(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    mixed: dict[str, Any] = {"refinement_model": "qwen", "generation_temperature": 0, "temperature": 1.5}
    assert (await start_full(client, **mixed)).status_code == 200
    asked = (await find_run(conn)).request
    assert (asked.generation_model, asked.refinement_model) == ("minimax", "qwen")
    assert (asked.generation_temperature, asked.refinement_temperature) == (0, 1.5)


async def test_of_a_pipeline_nothing_need_be_said(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert (await client.post("/api/pipeline/talk/start", json={})).status_code == 200
    assert (await find_run(conn)).request == RunRequest()


async def test_a_pipeline_over_a_video_that_does_not_exist_is_404(client: AsyncClient) -> None:
    assert outcome(await start_full(client, "nobody")) == (404, "Video not found: nobody")
    assert outcome(await start_full(client, "a%00b")) == (404, "Video not found: a\0b")


async def test_a_pipeline_does_not_start_beside_a_job_and_says_beside_which(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    await enqueue_run(conn, run_type=RunType.CLIPS)
    assert outcome(await start_full(client)) == (409, "Clip extraction already in progress for this video")


async def test_a_run_gets_an_identifier_of_its_own_where_that_of_its_millisecond_is_taken(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk")
    await conn.execute(
        """
        INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
        SELECT 'pipeline:talk:' || ms, %(video)s, 'full', 'completed', now() AT TIME ZONE 'utc'
        FROM generate_series(%(from)s::bigint, %(from)s + 400) AS ms
        """,
        {"video": video.id, "from": int(time.time() * 1000)},
    )
    assert (await start_full(client)).status_code == 200


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"min_moment_length": None}, "min_moment_length must be a number, not null"),
        ({"max_moments": None}, "max_moments must be a whole number, not null"),
        ({"temperature": None}, "temperature must be a number, not null"),
        ({"min_moments": True}, "min_moments must be a whole number, not true"),
        ({"min_moment_length": 9.5}, "min_moment_length must be 10 or more, not 9.5"),
        ({"min_moment_length": 301}, "min_moment_length must be 300 or less, not 301"),
        ({"max_moment_length": 601}, "max_moment_length must be 600 or less, not 601"),
        ({"min_moments": 0}, "min_moments must be more than 0, not 0"),
        ({"min_moments": 51}, "min_moments must be 50 or less, not 51"),
        ({"max_moments": 101}, "max_moments must be 100 or less, not 101"),
        ({"refinement_parallel_workers": 6}, "refinement_parallel_workers must be 5 or less, not 6"),
        ({"temperature": 2.1}, "temperature must be 2 or less, not 2.1"),
        ({"refinement_temperature": -1}, "refinement_temperature must be 0 or more, not -1"),
        (
            {"min_moment_length": 100, "max_moment_length": 90},
            "min_moment_length must not be greater than max_moment_length",
        ),
        ({"min_moments": 5, "max_moments": 4}, "min_moments must not be greater than max_moments"),
        ({"generation_prompt": "a\0b"}, "generation_prompt must not hold the character U+0000"),
    ],
    ids=str,
)
async def test_what_no_pipeline_can_do_is_one_sentence(
    client: AsyncClient, conn: Connection, changes: dict[str, Any], detail: str
) -> None:
    await make_video(conn, identifier="talk")
    assert outcome(await start_full(client, **changes)) == (422, detail)
    assert await RunRepository(conn).list_active_runs(1) == []


@pytest.mark.parametrize("field", ["model", "generation_model", "generation_prompt", "callback_url"])
async def test_half_a_surrogate_pair_is_refused(client: AsyncClient, conn: Connection, field: str) -> None:
    await make_video(conn, identifier="talk")
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/api/pipeline/talk/start", content=f'{{"{field}": "\\ud800"}}', headers=headers)
    assert outcome(answer) == (422, f"{field} must be text that UTF-8 can hold")


CALLBACK = "https://hooks.example/run?id=1"


async def test_callbacks_are_off_without_a_secret(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    assert outcome(await start_full(client, callback_url=CALLBACK)) == (
        422,
        "callback_url: this server sends no callbacks, because CALLBACK_SECRET is not set",
    )
    assert (await start_full(client, callback_url=None)).status_code == 200


async def test_a_callback_goes_to_a_web_address(redis: Redis, conn: Connection, app: FastAPI) -> None:
    await make_video(conn, identifier="talk")
    async with open_client(change_settings(app, callback_secret=SecretStr("whsec_c2VjcmV0"))) as client:
        for url in ("ftp://x/y", "https://", "x", "https://a b/", "https://a:b/", "https://ü.example/", "//x"):
            assert outcome(await start_full(client, callback_url=url)) == (
                422,
                "callback_url: must be an http:// or https:// address",
            )
        status, detail = outcome(await start_full(client, callback_url="http://10.0.0.1/run"))
        assert (status, detail.startswith("callback_url: the host of the URL is not a public one")) == (422, True)
        assert (await start_full(client, callback_url=CALLBACK)).status_code == 200
    assert (await find_run(conn)).request.callback_url == CALLBACK


async def test_of_fifty_starts_at_once_one_is_accepted(own_database_url: str, redis: Redis) -> None:
    settings = Settings(database_url=own_database_url, log_level="error")
    async with open_async_connection(settings) as conn:
        await make_video(conn, identifier="talk")
    await init_db(settings)
    try:
        async with open_client(create_app(settings)) as client:
            answers = await asyncio.gather(*(start_full(client) for _ in range(50)))
    finally:
        await close_db()
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 49]
    async with open_async_connection(settings) as conn:
        (run,) = await RunRepository(conn).list_active_runs(100)
        cursor = await conn.execute("SELECT count(*) FROM pipeline_history")
        assert await cursor.fetchone() == (1,)
    (accepted,) = (answer for answer in answers if answer.status_code == 200)
    assert accepted.json()["request_id"] == run.identifier
