"""The statuses of jobs that run, or have just ended, as the frontend asks for them after each of its buttons."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr
from redis.asyncio import Redis

from app.database import Connection
from app.models.runs import ClaimedRun, RunStatus, StageStatus
from app.models.stages import RunType, Stage
from app.services.live_runs import LiveStatusStore, make_live_status_fields
from tests.api.conftest import change_settings, open_client, without_redis
from tests.conftest import Statements
from tests.factories import make_clip, make_generation_config, make_moment, make_transcript, make_video
from tests.runs import begin_run, claim_run, enqueue_run, fail_run, finish_run, save_stage

MOMENT = "7621a017eec7482f"
JOBS = {
    "audio-extraction-status": RunType.AUDIO,
    "transcription-status": RunType.TRANSCRIPT,
    "generation-status": RunType.MOMENTS,
    f"refinement-status/{MOMENT}": RunType.REFINEMENT,
    "clip-extraction-status": RunType.CLIPS,
}
DETAILED = {"audio-extraction-status", "transcription-status"}


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def get(client: AsyncClient, status: str) -> dict[str, Any]:
    answer = await client.get(f"/api/videos/talk/{status}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def make_talk(conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id, identifier=MOMENT)


async def accept(conn: Connection, run_type: RunType, **values: Any) -> str:
    subject = MOMENT if run_type is RunType.REFINEMENT else ""
    return await enqueue_run(conn, run_type=run_type, **({"subject": subject} | values))


@pytest.mark.parametrize(("status", "run_type"), JOBS.items())
async def test_a_job_goes_from_processing_to_completed(
    client: AsyncClient, conn: Connection, statements: Statements, status: str, run_type: RunType
) -> None:
    await make_talk(conn)
    assert await get(client, status) == {"status": "not_started", "started_at": None}
    run = await accept(conn, run_type)
    with statements:
        assert (await get(client, status))["status"] == "processing"  # although no worker has it
    assert statements == 1
    claimed = await claim_run(conn, run)
    assert (await get(client, status))["status"] == "processing"
    await finish_run(conn, claimed)
    answer = await get(client, status)
    assert answer["status"] == "completed"
    assert abs(float(answer["started_at"]) - time.time()) < 60
    assert ("error" in answer) == (status in DETAILED)


@pytest.mark.parametrize(("status", "run_type"), JOBS.items())
async def test_a_job_that_fails_or_is_cancelled_ends_the_asking(
    client: AsyncClient, conn: Connection, status: str, run_type: RunType
) -> None:
    await make_talk(conn)
    run = await claim_run(conn, await accept(conn, run_type))
    await fail_run(conn, run, Stage.AUDIO, "The video has no audio")
    answer = await get(client, status)
    assert (answer["status"], answer.get("error", "")) == (
        "failed",
        "The video has no audio" if status in DETAILED else "",
    )
    await finish_run(conn, await claim_run(conn, await accept(conn, run_type)), RunStatus.CANCELLED)
    answer = await get(client, status)
    assert (answer["status"], answer.get("error", "")) == ("failed", "Cancelled" if status in DETAILED else "")


@pytest.mark.parametrize(("status", "run_type"), JOBS.items())
async def test_an_end_is_reported_for_an_hour_and_then_what_is_stored(
    client: AsyncClient, conn: Connection, status: str, run_type: RunType
) -> None:
    await make_talk(conn)
    await fail_run(conn, await claim_run(conn, await accept(conn, run_type)), Stage.AUDIO, "No sound")
    for minutes, reports in ((59, "failed"), (61, "not_started")):
        await conn.execute(
            "UPDATE pipeline_history SET completed_at = now() AT TIME ZONE 'utc' - make_interval(mins => %s)", [minutes]
        )
        assert (await get(client, status))["status"] == reports


async def test_a_job_comes_before_what_is_stored(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id)
    config = await make_generation_config(conn)
    moment = await make_moment(conn, video_id=video.id, identifier=MOMENT, generation_config_id=config.id)
    await make_moment(conn, video_id=video.id, parent_id=moment.id, is_refined=True)
    await make_clip(conn, moment)
    for status, run_type in JOBS.items():
        await accept(conn, run_type)
        assert (await get(client, status))["status"] == "processing"


async def test_a_run_of_another_kind_or_moment_is_not_reported(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    await accept(conn, RunType.REFINEMENT, subject="other")
    await enqueue_run(conn, run_type=RunType.AUDIO)
    for status in JOBS.keys() - {"audio-extraction-status"}:
        assert (await get(client, status))["status"] == "not_started"


async def test_the_newest_run_counts(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    await fail_run(conn, await claim_run(conn, await accept(conn, RunType.AUDIO)), Stage.AUDIO, "No sound")
    now = datetime.now(UTC).replace(tzinfo=None)
    earlier = await accept(conn, RunType.AUDIO, started_at=now - timedelta(hours=2))
    await finish_run(conn, await claim_run(conn, earlier))
    assert (await get(client, "audio-extraction-status"))["status"] == "failed"


@pytest.mark.parametrize("status", sorted(DETAILED))
async def test_a_job_tells_how_long_it_has_taken(client: AsyncClient, conn: Connection, status: str) -> None:
    await make_talk(conn)
    ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=9)
    run = await claim_run(conn, await accept(conn, JOBS[status], started_at=ago))
    answer = await get(client, status)
    assert answer == {
        "status": "processing",
        "started_at": str(ago.replace(tzinfo=UTC).timestamp()),
        "elapsed_seconds": pytest.approx(9, abs=5),
        "error": "",
    }
    assert answer["elapsed_seconds"] >= 9
    await finish_run(conn, run)
    await conn.execute("UPDATE pipeline_history SET completed_at = started_at + interval '3.25 seconds'")
    ended = await get(client, status)
    # Completed more than an hour ago it would not be: it began nine seconds ago.
    assert (ended["status"], ended["elapsed_seconds"]) == ("completed", 3.25)


async def begin_clips(conn: Connection, **progress: int) -> ClaimedRun:
    run = await begin_run(conn, run_type=RunType.CLIPS)
    await save_stage(conn, run, Stage.CLIPS, StageStatus.PROCESSING, progress=progress or None)
    return run


def counters(answer: dict[str, Any]) -> tuple[int, ...]:
    return tuple(answer[f"{name}_moments"] for name in ("total", "processed", "failed") if f"{name}_moments" in answer)


async def test_clips_are_counted_as_soon_as_there_is_something_to_count(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_talk(conn)
    run = await begin_clips(conn)
    assert counters(await get(client, "clip-extraction-status")) == ()
    fields = make_live_status_fields(run, run.stages, Stage.CLIPS, None) | {
        "clips_total": "5",
        "clips_processed": "2",
        "clips_failed": "1",
    }
    await LiveStatusStore(redis).write_active_status(run.identifier, fields, None)
    assert counters(await get(client, "clip-extraction-status")) == (5, 2, 1)


async def test_of_clips_that_are_done_those_that_failed_count_as_processed(
    client: AsyncClient, conn: Connection
) -> None:
    await make_talk(conn)
    run = await begin_clips(conn)
    counted = {"total": 5, "processed": 5, "failed": 1}
    await save_stage(conn, run, Stage.CLIPS, StageStatus.COMPLETED, progress=counted)
    await finish_run(conn, run, RunStatus.PARTIAL, error_stage="clips", error_message="1 of 5 failed")
    answer = await get(client, "clip-extraction-status")
    assert (answer["status"], counters(answer)) == ("completed", (5, 5, 1))
    # "Successfully extracted … clips (… failed)", as the frontend words it.
    assert answer["processed_moments"] - answer["failed_moments"] == 4


async def test_without_redis_a_job_that_runs_is_reported(app: FastAPI, conn: Connection) -> None:
    await make_talk(conn)
    await begin_clips(conn, total=5, processed=2, failed=0)
    async with open_client(without_redis(app)) as client:
        answer = await get(client, "clip-extraction-status")
    assert (answer["status"], counters(answer)) == ("processing", (5, 2, 0))


async def test_a_status_does_not_wait_for_the_timeout_of_a_redis_that_hangs(
    app: FastAPI, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_talk(conn)
    await begin_clips(conn)

    connections = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr("app.core.redis._ANSWER_SECONDS", 300.0)
    async with open_client(change_settings(app, redis_url=SecretStr(f"redis://127.0.0.1:{port}/0"))) as client:
        assert (await get(client, "clip-extraction-status"))["status"] == "processing"
    server.close()
    assert len(connections) == 1  # after its own timeout the client connects again
