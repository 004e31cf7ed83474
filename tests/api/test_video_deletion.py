"""`DELETE /api/videos/{id}`: what goes, and what stays."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, LiteralString

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from redis.asyncio import Redis

from app.database import Connection
from app.models import Video
from app.repositories import GenerationConfigRepository, MomentRepository, VideoRepository
from app.storage import Storage, audio_folder_key, clip_folder_key, thumbnail_folder_key, video_folder_key
from tests.api.conftest import open_client, without_redis
from tests.factories import (
    count_rows,
    make_clip,
    make_generation_config,
    make_moment,
    make_run,
    make_thumbnail,
    make_transcript,
    make_video,
)


@pytest.fixture
async def client(app: FastAPI, redis: Redis) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


@pytest.fixture
def storage(app: FastAPI) -> Storage:
    storage: Storage = app.state.resources.storage
    return storage


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def keep(storage: Storage, key: str, tmp_path: Path) -> str:
    """Store a file under a key and return its URL."""
    (tmp_path / "source").write_bytes(key.encode())
    return (await storage.put(key, tmp_path / "source")).url


async def make_whole_video(conn: Connection, storage: Storage, tmp_path: Path, identifier: str = "talk") -> Video:
    """A video with one of everything; its files are called video.mp4, still.jpg, audio.wav, clip.mp4 and clip.jpg."""
    video_url = await keep(storage, f"{video_folder_key(identifier)}/video.mp4", tmp_path)
    video = await make_video(conn, identifier=identifier, cloud_url=video_url, source_url="https://cdn/talk.mp4")
    transcript = await make_transcript(conn, video_id=video.id)
    config = await make_generation_config(conn, transcript_id=transcript.id)
    moment = await make_moment(conn, video_id=video.id, generation_config_id=config.id)
    await make_moment(conn, video_id=video.id, start_time=30, end_time=40)
    clip_url = await keep(storage, f"{clip_folder_key(identifier)}/clip.mp4", tmp_path)
    clip = await make_clip(conn, moment, cloud_url=clip_url)
    still_url = await keep(storage, f"{thumbnail_folder_key(identifier)}/still.jpg", tmp_path)
    await make_thumbnail(conn, video_id=video.id, cloud_url=still_url)
    clip_still_url = await keep(storage, f"{thumbnail_folder_key(identifier)}/clip.jpg", tmp_path)
    await make_thumbnail(conn, clip_id=clip.id, cloud_url=clip_still_url)
    await keep(storage, f"{audio_folder_key(identifier)}/sound.wav", tmp_path)
    await make_run(conn, video_id=video.id, status="completed", generation_config_id=config.id)
    return video


FOLDERS = (video_folder_key, audio_folder_key, clip_folder_key, thumbnail_folder_key)

EVERY_FILE = {"video.mp4", "still.jpg", "sound.wav", "clip.mp4", "clip.jpg"}


TABLES: tuple[LiteralString, ...] = ("videos", "transcripts", "moments", "clips", "thumbnails", "pipeline_history")


async def count_all_rows(conn: Connection) -> list[int]:
    """Return how many videos, transcripts, moments, clips, thumbnails and runs there are."""
    return [await count_rows(conn, table) for table in TABLES]


def counts(answer: dict[str, Any]) -> tuple[Any, ...]:
    """Return what an answer says of local video, audio, thumbnail, transcript, moments and clips."""
    return tuple(answer["deleted"]["local"].values())


async def test_a_deletion_takes_rows_and_files(
    client: AsyncClient, conn: Connection, storage: Storage, tmp_path: Path, media: Path
) -> None:
    await make_whole_video(conn, storage, tmp_path)
    answer = await client.delete("/api/videos/talk")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "completed",
        "video_id": "talk",
        "deleted": {
            "local": {"video": True, "audio": True, "thumbnail": True, "transcript": True, "moments": True, "clips": 1},
            "gcs": {"audio_files": 0, "clip_files": 0},
            "redis_keys": 0,
            "url_registry": True,
        },
        "errors": None,
        "duration_ms": answer.json()["duration_ms"],
    }
    assert isinstance(answer.json()["duration_ms"], int)
    assert await count_all_rows(conn) == [0] * 6
    assert files_in(media) == set()


async def test_what_is_deleted_twice_is_404(
    client: AsyncClient, conn: Connection, storage: Storage, tmp_path: Path
) -> None:
    await make_whole_video(conn, storage, tmp_path)
    assert (await client.delete("/api/videos/talk")).status_code == 200
    assert (await client.delete("/api/videos/talk")).status_code == 404


async def test_a_deletion_leaves_every_other_video(
    client: AsyncClient, conn: Connection, storage: Storage, tmp_path: Path, media: Path
) -> None:
    for identifier in ("talk", "talk2", "Talk", "tal"):
        await make_whole_video(conn, storage, tmp_path, identifier)
    await client.delete("/api/videos/talk")
    assert await count_all_rows(conn) == [3, 3, 6, 3, 6, 3]
    assert files_in(media / "videos/talk") == files_in(media / "clips/talk") == set()
    for identifier in ("talk2", "Talk", "tal"):
        left = [await storage.list_files(folder(identifier)) for folder in FOLDERS]
        assert [len(files) for files in left] == [1, 1, 1, 2]


async def test_moments_of_others_keep_a_config_that_was_made_for_this_transcript(
    client: AsyncClient, conn: Connection
) -> None:
    video = await make_video(conn, identifier="talk")
    transcript = await make_transcript(conn, video_id=video.id)
    config = await make_generation_config(conn, transcript_id=transcript.id)
    assert config.transcript_id == transcript.id
    other = await make_moment(conn, generation_config_id=config.id)
    await client.delete("/api/videos/talk")
    assert await MomentRepository(conn).get(other.id) is not None
    assert await GenerationConfigRepository(conn).get(config.id) is not None


async def test_files_of_an_imported_library_are_left(
    client: AsyncClient, conn: Connection, tmp_path: Path, redis: Redis
) -> None:
    library = tmp_path / "library"
    for name in ("videos/talk.mp4", "thumbnails/talk.jpg", "audios/talk.wav", "moment_clips/talk_clip.mp4"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_bytes(b"the user's")
    video = await make_video(conn, identifier="talk", cloud_url=(library / "videos/talk.mp4").as_uri())
    await make_thumbnail(conn, video_id=video.id, cloud_url=(library / "thumbnails/talk.jpg").as_uri())
    moment = await make_moment(conn, video_id=video.id)
    await make_clip(conn, moment, cloud_url=(library / "moment_clips/talk_clip.mp4").as_uri())
    answer = (await client.delete("/api/videos/talk")).json()
    assert answer["status"] == "completed"
    assert counts(answer) == (False, False, False, False, True, 0)
    assert len(files_in(library)) == 4
    assert await count_all_rows(conn) == [0] * 6


async def test_a_file_of_another_bucket_is_left(client: AsyncClient, conn: Connection, redis: Redis) -> None:
    await make_video(conn, identifier="talk", cloud_url="gs://of-somebody-else/talk.mp4")
    answer = await client.delete("/api/videos/talk")
    assert (answer.status_code, answer.json()["errors"]) == (200, None)
    assert counts(answer.json())[0] is False


@pytest.mark.parametrize(
    ("skip", "rows", "files", "said"),
    [
        ("skip_local_video", [1, 0, 0, 0, 0, 1], {"video.mp4"}, (False, True, True, True, True, 1)),
        ("skip_local_audio", [0, 0, 0, 0, 0, 0], {"sound.wav"}, (True, False, True, True, True, 1)),
        ("skip_local_thumbnail", [1, 0, 0, 0, 1, 1], {"video.mp4", "still.jpg"}, (False, True, False, True, True, 1)),
        ("skip_local_transcript", [1, 1, 0, 0, 0, 1], {"video.mp4"}, (False, True, True, False, True, 1)),
        ("skip_local_moments", [1, 0, 2, 0, 0, 1], {"video.mp4"}, (False, True, True, True, False, 1)),
        (
            "skip_local_clips",
            [1, 0, 1, 1, 1, 1],
            {"video.mp4", "clip.mp4", "clip.jpg"},
            (False, True, True, True, True, 0),
        ),
        ("skip_gcs_clips", [0] * 6, set(), (True, True, True, True, True, 1)),
        ("skip_gcs_audio", [0] * 6, set(), (True, True, True, True, True, 1)),
    ],
)
async def test_what_is_skipped_stays_and_with_it_the_video(
    client: AsyncClient,
    conn: Connection,
    storage: Storage,
    tmp_path: Path,
    media: Path,
    skip: str,
    rows: list[int],
    files: set[str],
    said: tuple[object, ...],
) -> None:
    await make_whole_video(conn, storage, tmp_path)
    answer = await client.delete("/api/videos/talk", params={skip: True})
    assert answer.status_code == 200
    assert await count_all_rows(conn) == rows
    assert files_in(media) == files
    assert (answer.json()["status"], answer.json()["errors"], counts(answer.json())) == ("completed", None, said)


async def test_after_a_partial_deletion_the_rest_can_be_deleted(
    client: AsyncClient, conn: Connection, storage: Storage, tmp_path: Path, media: Path
) -> None:
    await make_whole_video(conn, storage, tmp_path)
    await client.delete("/api/videos/talk", params={"skip_local_clips": True, "skip_local_audio": True})
    answer = await client.delete("/api/videos/talk")
    assert counts(answer.json()) == (True, True, False, False, True, 1)
    assert (await count_all_rows(conn), files_in(media)) == ([0] * 6, set())


async def test_a_skip_of_what_the_video_does_not_have_keeps_nothing(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    skips = {"skip_local_transcript": 1, "skip_local_moments": 1, "skip_local_thumbnail": 1, "skip_local_clips": 1}
    assert (await client.delete("/api/videos/talk", params=skips)).status_code == 200
    assert await count_all_rows(conn) == [0] * 6


@pytest.mark.parametrize(("skips", "source_url"), [({}, None), ({"skip_registry": 1}, "https://cdn/talk.mp4")])
async def test_a_video_that_stays_forgets_its_source_unless_that_is_skipped(
    client: AsyncClient, conn: Connection, skips: dict[str, int], source_url: str | None
) -> None:
    await make_video(conn, identifier="talk", source_url="https://cdn/talk.mp4")
    answer = await client.delete("/api/videos/talk", params={"skip_local_video": 1, **skips})
    video = await VideoRepository(conn).get_by_identifier("talk")
    assert video is not None
    assert video.source_url == source_url
    assert answer.json()["deleted"]["url_registry"] is (source_url is None)


@pytest.mark.parametrize("flag", ["maybe", "", "2", "nan"])
async def test_a_flag_that_is_neither_true_nor_false_is_422(client: AsyncClient, conn: Connection, flag: str) -> None:
    await make_video(conn, identifier="talk")
    answer = await client.delete("/api/videos/talk", params={"force": flag})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert (await count_all_rows(conn))[0] == 1


@pytest.mark.parametrize(("stored", "shown"), [("running", "processing"), ("pending", "pending")])
async def test_a_video_that_a_run_works_on_is_deleted_only_by_force(
    client: AsyncClient, conn: Connection, storage: Storage, tmp_path: Path, media: Path, stored: str, shown: str
) -> None:
    video = await make_whole_video(conn, storage, tmp_path)
    await make_run(conn, video_id=video.id, status=stored)
    before = await count_all_rows(conn)
    refused = await client.delete("/api/videos/talk")
    assert refused.status_code == 400
    assert refused.json() == {
        "detail": f"Cannot delete video while pipeline is active (status: {shown}). Use force=true to delete anyway."
    }
    assert (await count_all_rows(conn), files_in(media)) == (before, EVERY_FILE)
    assert (await client.delete("/api/videos/talk", params={"force": True})).status_code == 200
    assert await count_all_rows(conn) == [0] * 6


async def test_an_older_run_that_never_ended_does_not_hold_a_video(client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_run(conn, video_id=video.id, status="running")
    await make_run(conn, video_id=video.id, status="failed")
    assert (await client.delete("/api/videos/talk")).status_code == 200


async def test_files_without_a_row_are_found_and_deleted(
    client: AsyncClient, storage: Storage, tmp_path: Path, media: Path
) -> None:
    for folder, name in (
        (video_folder_key, "old.mp4"),
        (audio_folder_key, "old.wav"),
        (clip_folder_key, "old.mp4"),
        (thumbnail_folder_key, "old.jpg"),
    ):
        await keep(storage, f"{folder('talk')}/{name}", tmp_path)
    answer = await client.delete("/api/videos/talk")
    assert counts(answer.json()) == (True, True, True, False, False, 1)
    assert files_in(media) == set()


async def test_the_live_state_goes_too_and_no_other_videos(client: AsyncClient, conn: Connection, redis: Redis) -> None:
    video = await make_video(conn, identifier="a[b]*c")
    await make_run(conn, video_id=video.id, identifier="pipeline:odd-run:1", status="completed")
    own = [
        "pipeline:a[b]*c:lock",
        "pipeline:a[b]*c:cancel",
        "pipeline:run:pipeline:a[b]*c:17",
        "pipeline:run:pipeline:odd-run:1",
        "pipeline:run:in-history",
        "pipeline:run:in-active",
        "job:audio_extraction:a[b]*c",
        "job:clip_extraction:a[b]*c",
        "job:moment_refinement:a[b]*c:0123456789abcdef",
    ]
    others = [
        "pipeline:abc:active",
        "pipeline:a[b]*cd:lock",
        "pipeline:run:pipeline:abc:17",
        "pipeline:run:pipeline:a[b]*c:x:17",
        "pipeline:run:pipeline:a[b]*c:17:18",
        "job:audio_extraction:a[b]*cd",
        "job:audio_extraction:abc",
        "job:audio_extraction:a[b]*c:d",
        "job:audio_extraction:x:a[b]*c",
        "job:moment_refinement:a[b]*cd:0123456789abcdef",
        "job:moment_refinement:a[b]*c:d:0123456789abcdef",
        "model:config:_keys",
    ]
    for key in own + others:
        await redis.set(key, "1")
    await redis.hset("pipeline:a[b]*c:active", "request_id", "in-active")
    await redis.zadd("pipeline:a[b]*c:history", {"in-history": 1})
    answer = await client.delete("/api/videos/a[b]*c")
    assert answer.json()["deleted"]["redis_keys"] == len(own) + 2
    assert set(await redis.keys("*")) == set(others)


async def test_the_live_state_may_be_kept(client: AsyncClient, conn: Connection, redis: Redis) -> None:
    await make_video(conn, identifier="talk")
    await redis.set("pipeline:talk:lock", "1")
    answer = await client.delete("/api/videos/talk", params={"skip_redis": True})
    assert answer.json()["deleted"]["redis_keys"] == 0
    assert await redis.exists("pipeline:talk:lock")


async def test_live_state_without_a_video_is_found_and_deleted(client: AsyncClient, redis: Redis) -> None:
    await redis.set("pipeline:talk:lock", "1")
    answer = await client.delete("/api/videos/talk")
    assert (answer.status_code, answer.json()["deleted"]["redis_keys"]) == (200, 1)
    assert (await client.delete("/api/videos/talk")).status_code == 404


async def test_a_redis_that_is_away_makes_the_deletion_partial(app: FastAPI, conn: Connection) -> None:
    await make_video(conn, identifier="talk")
    async with open_client(without_redis(app)) as client:
        answer = await client.delete("/api/videos/talk")
        unknown = await client.delete("/api/videos/nobody")
    assert (answer.status_code, answer.json()["status"]) == (200, "partial")
    assert answer.json()["errors"] == ["The live state could not be deleted: Redis is not available"]
    assert await count_all_rows(conn) == [0] * 6
    assert (unknown.status_code, unknown.json()) == (503, {"detail": "Redis is not available"})
