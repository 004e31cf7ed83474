"""`GET /api/videos/{id}/moments/{mid}/video-availability`."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from psycopg.types.json import Jsonb
from redis.asyncio import Redis

from app.ai.registry import ModelConfig, ModelRegistry
from app.core.config import Settings
from app.core.errors import StorageUnavailable
from app.core.redis import make_redis
from app.database import Connection
from app.main import create_app
from tests.api.conftest import open_client
from tests.factories import make_clip, make_moment, make_transcript, make_video

# A word in each second of 200, half a second long.
WORDS = [{"word": f"w{second}", "start": float(second), "end": second + 0.5} for second in range(200)]


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """A client of the application's Redis, which has the default models and nothing else."""
    async with make_redis(settings) as redis:
        await redis.flushdb()
        await ModelRegistry(redis).seed_defaults()
        yield redis


@pytest.fixture
async def client(app: FastAPI, redis: Redis) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


async def make_talk(conn: Connection, words: Any = WORDS, **moment: Any) -> Any:
    """A moment from 50 to 60, so that a clip shows 20 to 90: the words of 20.0 to 90.5."""
    video = await make_video(conn, identifier="demo talk")
    if words is not None:
        await make_transcript(conn, video_id=video.id, word_timestamps=words)
    times = {"start_time": 50.0, "end_time": 60.0}
    return await make_moment(conn, video_id=video.id, identifier="7621a017eec7482f", **(times | moment))


async def add_clip(conn: Connection, moment: Any, tmp_path: Path, seconds: float = 70.5) -> None:
    clip = tmp_path / "library" / "moment_clips" / "clip.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"a film")
    await make_clip(conn, moment, cloud_url=clip.as_uri(), start_time=20.0, end_time=20.0 + seconds)


async def get(client: AsyncClient) -> dict[str, Any]:
    answer = await client.get("/api/videos/demo talk/moments/7621a017eec7482f/video-availability")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_clip_that_shows_what_is_said_is_available(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    await add_clip(conn, await make_talk(conn), tmp_path)
    assert await get(client) == {
        "available": True,
        "clip_url": "http://localhost/moment_clips/demo%20talk_7621a017eec7482f_clip.mp4",
        "clip_duration": 70.5,
        "transcript_duration": 70.5,
        "duration_match": True,
        "warning": None,
        "model_supports_video": True,
    }


async def test_the_address_of_the_clip_leads_to_it(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await add_clip(conn, await make_talk(conn), tmp_path)
    assert (await client.get((await get(client))["clip_url"])).content == b"a film"


async def test_without_a_clip_there_is_none(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    assert await get(client) == {
        "available": False,
        "clip_url": None,
        "clip_duration": None,
        "transcript_duration": 70.5,
        "duration_match": False,
        "warning": "Video clip not available. Extract clips first.",
        "model_supports_video": True,
    }


async def test_a_clip_of_audio_cannot_be_shown_to_a_model(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    moment = await make_talk(conn)
    clip = tmp_path / "library" / "moment_clips" / "clip.m4a"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"audio")
    await make_clip(conn, moment, cloud_url=clip.as_uri(), video_codec=None, audio_codec="aac")
    answer = await get(client)
    assert (answer["available"], answer["clip_url"], answer["duration_match"]) == (False, None, False)
    assert answer["warning"] == "Video clip not available. The clip has audio and no video stream."


@pytest.mark.parametrize("url", ["file:///etc/hostname", "https://host/clip.mp4", "x"])
async def test_a_clip_that_cannot_be_read_is_not_available(client: AsyncClient, conn: Connection, url: str) -> None:
    await make_clip(conn, await make_talk(conn), cloud_url=url)
    answer = await get(client)
    assert (answer["available"], answer["clip_url"], answer["clip_duration"]) == (False, None, None)
    assert answer["warning"] == "Video clip not available. Its file is missing."


async def test_a_clip_in_a_storage_that_does_not_answer_is_not_available(
    app: FastAPI, client: AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(storage: object, url: str) -> None:
        raise StorageUnavailable("The storage is away")

    monkeypatch.setattr(type(app.state.resources.storage), "stat", fail)
    await make_clip(conn, await make_talk(conn))
    answer = await get(client)
    assert (answer["available"], answer["clip_url"]) == (False, None)
    assert answer["warning"] == "Video clip not available. The storage is away"


async def test_times_that_no_float_holds_are_no_words(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    words = json.dumps([{"start": 10**400, "end": 10**400}])
    await conn.execute("UPDATE transcripts SET word_timestamps = %s::jsonb", [words])
    assert (await get(client))["transcript_duration"] is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(60.0, "clip=60.00s, transcript=70.50s (diff=10.50s)"), (71.0625, "clip=71.06s, transcript=70.50s (diff=0.56s)")],
)
async def test_a_clip_of_another_length_is_a_mismatch(
    client: AsyncClient, conn: Connection, tmp_path: Path, seconds: float, expected: str
) -> None:
    await add_clip(conn, await make_talk(conn), tmp_path, seconds)
    answer = await get(client)
    assert (answer["available"], answer["duration_match"]) == (True, False)
    assert answer["warning"] == f"Duration mismatch: {expected}"


@pytest.mark.parametrize("seconds", [70.0, 71.0])
async def test_half_a_second_is_no_mismatch(
    client: AsyncClient, conn: Connection, tmp_path: Path, seconds: float
) -> None:
    await add_clip(conn, await make_talk(conn), tmp_path, seconds)
    answer = await get(client)
    assert (answer["duration_match"], answer["warning"]) == (True, None)


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (None, "Could not validate alignment: there is no transcript"),
        ([], "No words found in transcript range"),
        (WORDS[:10], "No words found in transcript range"),
        (WORDS[150:], "No words found in transcript range"),
        ({}, "No words found in transcript range"),
        ([{"start": 50.0, "end": 40.0}], "No words found in transcript range"),
        ([None, 5, {}, {"start": "a", "end": []}, {"start": -1, "end": -1}], "No words found in transcript range"),
    ],
    ids=range(7),
)
async def test_where_nothing_is_said_nothing_can_be_compared(
    client: AsyncClient, conn: Connection, tmp_path: Path, words: Any, warning: str
) -> None:
    moment = await make_talk(conn, words=None if words is None else [])
    await conn.execute("UPDATE transcripts SET word_timestamps = %s", [Jsonb(words)])
    await add_clip(conn, moment, tmp_path)
    answer = await get(client)
    assert (answer["available"], answer["transcript_duration"], answer["duration_match"]) == (True, None, False)
    assert answer["warning"] == warning


async def test_a_window_ends_with_the_last_word_and_begins_with_the_first(
    client: AsyncClient, conn: Connection
) -> None:
    before_the_video = {"word": "w", "start": -1.0, "end": -0.5}
    await make_talk(conn, [before_the_video, *WORDS], start_time=10.0, end_time=190.0)
    assert (await get(client))["transcript_duration"] == 199.5


@pytest.mark.parametrize("words", [WORDS[25:41], WORDS[70:86]], ids=["before", "behind"])
async def test_what_is_said_only_around_the_moment_counts(client: AsyncClient, conn: Connection, words: Any) -> None:
    await make_talk(conn, words)
    assert (await get(client))["transcript_duration"] == 15.5


async def test_the_words_of_another_video_do_not_count(client: AsyncClient, conn: Connection) -> None:
    await make_transcript(conn, word_timestamps=WORDS)
    await make_talk(conn, words=None)
    assert (await get(client))["transcript_duration"] is None


@pytest.mark.parametrize("supports", [True, False])
async def test_the_registry_says_whether_the_model_can_be_shown_a_clip(
    client: AsyncClient, conn: Connection, redis: Redis, supports: bool
) -> None:
    await make_talk(conn)
    await ModelRegistry(redis).put_model(
        "qwen3_vl_fp8", ModelConfig("Q", "http://localhost:1", supports_video=supports)
    )
    assert (await get(client))["model_supports_video"] is supports


async def test_a_model_that_the_registry_does_not_have_cannot_be_shown_a_clip(
    client: AsyncClient, conn: Connection, redis: Redis
) -> None:
    await make_talk(conn)
    await ModelRegistry(redis).delete_model("qwen3_vl_fp8")
    assert (await get(client))["model_supports_video"] is False


@pytest.mark.parametrize("host", ["[", "a b", "evil.example:99999", "", "ü"])
async def test_a_strange_host_is_no_error_where_every_name_is_allowed(
    app: FastAPI, settings: Settings, redis: Redis, conn: Connection, tmp_path: Path, host: str
) -> None:
    await add_clip(conn, await make_talk(conn), tmp_path)
    open_app = create_app(settings.model_copy(update={"allowed_host_names": ("*",)}))
    open_app.dependency_overrides = app.dependency_overrides
    path = "/api/videos/demo talk/moments/7621a017eec7482f/video-availability"
    async with open_client(open_app) as client:
        answer = await client.get(path, headers={b"Host": host.encode()})
    assert answer.status_code == 200
