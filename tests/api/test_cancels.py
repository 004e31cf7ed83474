"""Runs that are cancelled, by a user and by the deletion of their video."""

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from app.database import Connection
from app.models.stages import RunType, Stage
from app.repositories.runs import RunRepository
from tests.api.starting import find_run, outcome, start_full
from tests.factories import make_video
from tests.runs import begin_run, enqueue_run, fail_run


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def test_nothing_runs_is_400(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    for video in ("talk", "nobody"):
        answer = await client.post(f"/api/pipeline/{video}/cancel")
        assert outcome(answer) == (400, f"No pipeline running for video '{video}'")


async def test_a_run_that_waits_is_cancelled_at_once(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    await start_full(client)
    answer = await client.post("/api/pipeline/talk/cancel")
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Cancellation requested", "video_id": "talk"},
    )
    assert (await client.get("/api/pipeline/talk/status")).json()["status"] == "cancelled"
    assert (await client.post("/api/pipeline/talk/cancel")).status_code == 400


async def test_the_worker_of_a_run_is_notified_of_its_cancellation(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    run = await begin_run(conn)
    assert (await client.post("/api/pipeline/talk/cancel")).status_code == 200
    assert (await client.get("/api/pipeline/talk/status")).json()["status"] == "processing"
    assert await redis.keys(f"pipeline:run:{run.identifier}*") == []
    cursor = await conn.execute("SELECT cancel_requested FROM pipeline.runs")
    assert await cursor.fetchone() == (True,)


async def test_all_that_runs_over_a_video_is_cancelled_and_nothing_else(client: AsyncClient, conn: Connection) -> None:
    for video in ("talk", "other"):
        await make_video(conn, identifier=video)
        await enqueue_run(conn, video, RunType.CLIPS)
        await enqueue_run(conn, video, RunType.MOMENTS)
    assert (await client.post("/api/pipeline/talk/cancel")).status_code == 200
    assert {run.video for run in await RunRepository(conn).list_active_runs(10)} == {"other"}


async def test_a_video_that_a_run_works_on_is_deleted_with_force_and_the_run_with_it(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    await enqueue_run(conn)
    words = "Cannot delete video while pipeline is active (status: {}). Use force=true to delete anyway."
    assert outcome(await client.delete("/api/videos/talk")) == (400, words.format("pending"))
    await find_run(conn)
    assert outcome(await client.delete("/api/videos/talk")) == (400, words.format("processing"))
    assert (await client.delete("/api/videos/talk?force=true")).status_code == 200
    assert await RunRepository(conn).list_active_runs(1) == []


async def test_a_run_over_a_video_of_which_only_a_part_is_deleted_with_force_is_cancelled(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk")
    await enqueue_run(conn, run_type=RunType.AUDIO)
    await fail_run(conn, await begin_run(conn, run_type=RunType.CLIPS), Stage.CLIPS, "No room")
    part = "/api/videos/talk?skip_local_video=true"
    assert (await client.delete(part)).status_code == 400
    assert (await client.delete(f"{part}&force=true")).status_code == 200
    assert (await client.get("/api/videos/talk")).status_code == 200
    assert await RunRepository(conn).list_active_runs(1) == []
