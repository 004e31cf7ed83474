"""The statuses of jobs, over a real Redis-protocol server and without one."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.redis import close_redis, get_redis, init_redis
from app.database import Connection
from app.storage import audio_folder
from tests.api.conftest import open_client
from tests.conftest import Statements
from tests.factories import make_clip, make_generation_config, make_moment, make_transcript, make_video

MADE_AT = datetime(2026, 2, 8, 12)
MADE_AT_TEXT = str(MADE_AT.replace(tzinfo=UTC).timestamp())
NOT_STARTED = {"status": "not_started", "started_at": None}
OF_VIDEO = {
    "audio-extraction-status": "audio_extraction",
    "transcription-status": "transcription",
    "generation-status": "moment_generation",
    "clip-extraction-status": "clip_extraction",
}


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """The application's own client, on an empty database."""
    init_redis(Settings(redis_url=redis_url))
    await get_redis().flushdb()
    yield get_redis()
    await close_redis()


@pytest.fixture
async def client(app: FastAPI, redis: Redis) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


async def get(client: AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(f"/api/videos/{path}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def tell(redis: Redis, kind: str, **fields: str | float) -> None:
    mapping: dict[Any, Any] = {"job_type": kind, **fields}
    await redis.hset(f"job:{kind}:talk", mapping=mapping)


@pytest.mark.parametrize("status", OF_VIDEO)
async def test_of_a_new_video_nothing_has_started(client: AsyncClient, conn: Connection, status: str) -> None:
    await make_video(conn, identifier="talk")
    assert await get(client, f"talk/{status}") == NOT_STARTED


@pytest.mark.parametrize("status", [*OF_VIDEO, "refinement-status/x", "moments/x/video-availability"])
@pytest.mark.parametrize("video", ["nobody", "a%00b"])
async def test_a_video_that_does_not_exist_is_404(client: AsyncClient, status: str, video: str) -> None:
    answer = await client.get(f"/api/videos/{video}/{status}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Video not found"})


@pytest.mark.parametrize("status", ["refinement-status/", "moments/"])
async def test_a_moment_of_another_video_is_404(client: AsyncClient, conn: Connection, status: str) -> None:
    await make_video(conn, identifier="talk")
    other = await make_moment(conn)
    for moment in (other.identifier, "nothing"):
        rest = "/video-availability" if status == "moments/" else ""
        answer = await client.get(f"/api/videos/talk/{status}{moment}{rest}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Moment not found"})


async def test_a_transcript_that_is_stored_has_been_made(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id, processing_time_seconds=2.5)
    await conn.execute("UPDATE transcripts SET created_at = %s", [MADE_AT])
    with statements:
        answer = await get(client, "talk/transcription-status")
    assert answer == {"status": "completed", "started_at": MADE_AT_TEXT, "elapsed_seconds": 2.5, "error": ""}
    assert statements == 1


@pytest.mark.parametrize("place", ["own", "library"])
async def test_sound_that_is_stored_has_been_extracted(
    client: AsyncClient, conn: Connection, tmp_path: Path, place: str
) -> None:
    await make_video(conn, identifier="Talk 1")
    folder = tmp_path / "media" / audio_folder("Talk 1") if place == "own" else tmp_path / "library" / "audios"
    folder.mkdir(parents=True)
    (folder / "Talk 1.wav").write_bytes(b"RIFF")
    os.utime(folder / "Talk 1.wav", (float(MADE_AT_TEXT), float(MADE_AT_TEXT)))
    answer = await get(client, "Talk 1/audio-extraction-status")
    assert answer == {"status": "completed", "started_at": MADE_AT_TEXT, "elapsed_seconds": None, "error": ""}


async def test_moments_of_a_model_have_been_generated_and_those_of_a_user_have_not(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id)
    assert await get(client, "talk/generation-status") == NOT_STARTED
    config = await make_generation_config(conn)
    await make_moment(conn, video_id=video.id, start_time=30.0, end_time=40.0, generation_config_id=config.id)
    await conn.execute("UPDATE moments SET created_at = %s", [MADE_AT])
    assert await get(client, "talk/generation-status") == {"status": "completed", "started_at": MADE_AT_TEXT}


async def test_a_moment_with_a_refined_one_has_been_refined(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    moment = await make_moment(conn, video_id=video.id)
    path = f"talk/refinement-status/{moment.identifier}"
    assert await get(client, path) == NOT_STARTED
    await make_moment(conn, video_id=video.id, parent_id=moment.id, is_refined=True, start_time=11.0)
    await conn.execute("UPDATE moments SET created_at = %s", [MADE_AT])
    assert await get(client, path) == {"status": "completed", "started_at": MADE_AT_TEXT}
    assert await get(client, "talk/generation-status") == NOT_STARTED


async def test_clips_that_are_stored_have_been_cut_and_the_frontend_counts_them(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk")
    moments = [await make_moment(conn, video_id=video.id, start_time=10.0 * n, end_time=10.0 * n + 9) for n in range(3)]
    await make_moment(conn, video_id=video.id, parent_id=moments[0].id, is_refined=True)
    await make_clip(conn, moments[0])
    await make_clip(conn, moments[1])
    await conn.execute("UPDATE clips SET created_at = %s", [MADE_AT])
    assert await get(client, "talk/clip-extraction-status") == {
        "status": "completed",
        "started_at": MADE_AT_TEXT,
        "total_moments": 3,
        "processed_moments": 2,
        "failed_moments": 0,
    }


@pytest.mark.parametrize(("status", "kind"), OF_VIDEO.items())
async def test_a_job_that_runs_comes_before_what_is_stored(
    client: AsyncClient, conn: Connection, redis: Redis, status: str, kind: str
) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id)
    config = await make_generation_config(conn)
    await make_clip(conn, await make_moment(conn, video_id=video.id, generation_config_id=config.id))
    started_at = time.time() - 3
    await tell(redis, kind, status="processing", started_at=started_at, completed_at="", error="")
    answer = await get(client, f"talk/{status}")
    assert (answer["status"], answer["started_at"]) == ("processing", str(started_at))


async def test_a_refinement_tells_of_its_own_moment(client: AsyncClient, conn: Connection, redis: Redis) -> None:
    video = await make_video(conn, identifier="talk")
    moment, other = [await make_moment(conn, video_id=video.id, end_time=end) for end in (20.0, 30.0)]
    await redis.hset(f"job:moment_refinement:talk:{moment.identifier}", mapping={"status": "failed"})
    assert (await get(client, f"talk/refinement-status/{moment.identifier}"))["status"] == "failed"
    assert await get(client, f"talk/refinement-status/{other.identifier}") == NOT_STARTED


async def test_a_job_that_failed_says_why_and_how_long_it_took(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    times = {"started_at": "1795346910.7080352", "completed_at": "1795346913.8080352"}
    await tell(redis, "audio_extraction", status="failed", error="Audio extraction failed", **times)
    answer = await get(client, "talk/audio-extraction-status")
    assert answer.pop("elapsed_seconds") == pytest.approx(3.1)
    assert answer == {"status": "failed", "started_at": "1795346910.7080352", "error": "Audio extraction failed"}


async def test_a_job_that_has_not_ended_after_840_seconds_has_failed(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    for age, status, error in ((830, "processing", ""), (850, "failed", "Not ended after 840 seconds")):
        await tell(redis, "transcription", status="processing", started_at=time.time() - age)
        answer = await get(client, "talk/transcription-status")
        assert (answer["status"], answer["error"]) == (status, error)


async def test_the_counters_of_a_job_come_once_there_are_any(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_video(conn, identifier="talk")
    await tell(redis, "clip_extraction", status="processing", started_at="1795346924.7800696")
    assert (await get(client, "talk/clip-extraction-status")).keys() == NOT_STARTED.keys()
    counters = {"total_moments": 5, "processed_moments": 5, "failed_moments": 1}
    await tell(redis, "clip_extraction", status="completed", **counters)
    answer = await get(client, "talk/clip-extraction-status")
    assert answer == {"status": "completed", "started_at": "1795346924.7800696", **counters}


@pytest.mark.parametrize(
    "fields",
    [
        {"status": ""},
        {"status": "odd", "started_at": "1"},
        {"video_id": "talk"},
    ],
    ids=str,
)
async def test_a_record_that_says_nothing_is_passed_over(
    client: AsyncClient, conn: Connection, redis: Redis, fields: dict[str, str]
) -> None:
    await make_video(conn, identifier="talk")
    await tell(redis, "clip_extraction", **fields)
    assert await get(client, "talk/clip-extraction-status") == NOT_STARTED


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-1", "1" * 5000, "²"])
async def test_numbers_that_are_none_do_no_harm(client: AsyncClient, conn: Connection, redis: Redis, text: str) -> None:
    await make_video(conn, identifier="talk")
    counters = dict.fromkeys(("total_moments", "processed_moments", "failed_moments"), text)
    await tell(redis, "clip_extraction", status="completed", started_at=text, completed_at=text, **counters)
    answer = await get(client, "talk/clip-extraction-status")
    assert answer == {"status": "completed", "started_at": "-1.0" if text == "-1" else None}


async def test_a_key_of_another_type_is_passed_over(client: AsyncClient, conn: Connection, redis: Redis) -> None:
    await make_video(conn, identifier="talk")
    await redis.set("job:transcription:talk", "processing")
    assert await get(client, "talk/transcription-status") == NOT_STARTED


async def test_without_redis_the_tables_tell(app: FastAPI, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id)
    moment = await make_moment(conn, video_id=video.id)
    init_redis(Settings(redis_url="redis://127.0.0.1:1/0"))
    try:
        async with open_client(app) as client:
            assert (await get(client, "talk/transcription-status"))["status"] == "completed"
            assert await get(client, "talk/audio-extraction-status") == NOT_STARTED
            availability = await get(client, f"talk/moments/{moment.identifier}/video-availability")
    finally:
        await close_redis()
    assert availability["model_supports_video"] is True


async def test_a_redis_that_hangs_delays_a_status_by_a_second_at_most(app: FastAPI, conn: Connection) -> None:
    await make_video(conn, identifier="talk")

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    init_redis(Settings(redis_url=f"redis://127.0.0.1:{port}/0"))
    started = time.monotonic()
    try:
        async with open_client(app) as client:
            assert await get(client, "talk/generation-status") == NOT_STARTED
    finally:
        await close_redis()
        server.close()
    assert time.monotonic() - started < 3
