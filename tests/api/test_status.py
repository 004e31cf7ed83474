"""The statuses of jobs of which only the results are known."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.database import Connection
from app.services import media
from app.storage import audio_folder_key
from tests.api.conftest import open_client, without_redis
from tests.conftest import Statements
from tests.factories import make_clip, make_generation_config, make_moment, make_transcript, make_video

MADE_AT = datetime(2026, 2, 8, 12)
MADE_AT_TEXT = str(MADE_AT.replace(tzinfo=UTC).timestamp())
NOT_STARTED = {"status": "not_started", "started_at": None}
OF_VIDEO = ("audio-extraction-status", "transcription-status", "generation-status", "clip-extraction-status")


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def get(client: AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(f"/api/videos/{path}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


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
async def test_audio_that_is_stored_has_been_extracted(
    client: AsyncClient, conn: Connection, tmp_path: Path, place: str
) -> None:
    await make_video(conn, identifier="Talk 1")
    folder = tmp_path / "media" / audio_folder_key("Talk 1") if place == "own" else tmp_path / "library" / "audios"
    folder.mkdir(parents=True)
    (folder / "Talk 1.wav").write_bytes(b"RIFF")
    os.utime(folder / "Talk 1.wav", (float(MADE_AT_TEXT), float(MADE_AT_TEXT)))
    answer = await get(client, "Talk 1/audio-extraction-status")
    assert answer == {"status": "completed", "started_at": MADE_AT_TEXT, "elapsed_seconds": None, "error": ""}


async def test_audio_that_is_registered_is_in_the_list_of_videos_at_once(
    client: AsyncClient, conn: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_FRESH_SECONDS", 3600.0)
    await make_video(conn, identifier="talk")
    folder = tmp_path / "media" / audio_folder_key("talk")
    assert (await client.get("/api/videos")).json()[0]["has_audio"] is False
    folder.mkdir(parents=True)
    (folder / "sound.wav").write_bytes(b"RIFF")
    assert (await client.get("/api/videos")).json()[0]["has_audio"] is False
    assert (await get(client, "talk/audio-extraction-status"))["status"] == "completed"
    assert (await client.get("/api/videos")).json()[0]["has_audio"] is True


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


async def test_without_redis_the_tables_tell(app: FastAPI, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id)
    moment = await make_moment(conn, video_id=video.id)
    async with open_client(without_redis(app)) as client:
        assert (await get(client, "talk/transcription-status"))["status"] == "completed"
        assert await get(client, "talk/audio-extraction-status") == NOT_STARTED
        availability = await get(client, f"talk/moments/{moment.identifier}/video-availability")
    assert availability["model_supports_video"] is True
