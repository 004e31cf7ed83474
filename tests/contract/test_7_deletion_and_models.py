"""Deleting videos, and the registry of models."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from app.database import Connection
from app.models import Video
from app.storage import Storage, audio_folder_key, clip_folder_key, thumbnail_folder_key, video_folder_key
from tests.contract.browser import Browser, detail_of
from tests.factories import make_clip, make_moment, make_run, make_thumbnail, make_transcript, make_video

TALK = "/api/videos/demo-talk"
MODELS = "/api/admin/models"
EVERY_LOCAL_SKIP = ("video", "audio", "thumbnail", "transcript", "moments", "clips")


@pytest.fixture
def storage(app: FastAPI) -> Storage:
    storage: Storage = app.state.resources.storage
    return storage


async def keep(storage: Storage, folder: str, name: str, tmp_path: Path) -> str:
    """Store a file and return its URL."""
    (tmp_path / name).write_bytes(b"media")
    return (await storage.put(f"{folder}/{name}", tmp_path / name)).url


@pytest.fixture
async def talk(conn: Connection, redis: Redis, storage: Storage, tmp_path: Path) -> Video:
    """The video `demo-talk` in this server's own storage, with all but a thumbnail and a source."""
    identifier = "demo-talk"
    url = await keep(storage, video_folder_key(identifier), "demo-talk.mp4", tmp_path)
    video = await make_video(conn, identifier=identifier, cloud_url=url)
    await keep(storage, audio_folder_key(identifier), "demo-talk.wav", tmp_path)
    await make_transcript(conn, video_id=video.id)
    for start in (0.0, 10.0):
        moment = await make_moment(conn, video_id=video.id, start_time=start, end_time=start + 5)
        clip = await keep(storage, clip_folder_key(identifier), f"{moment.identifier}.mp4", tmp_path)
        await make_clip(conn, moment, cloud_url=clip)
    await redis.hset("pipeline:demo-talk:active", mapping={"status": "completed"})
    return video


async def test_a_deletion_tells_what_is_gone(browser: Browser, talk: Video) -> None:
    answer = (await browser.send("DELETE", TALK)).json()
    assert isinstance(answer.pop("duration_ms"), int)
    assert answer == {
        "status": "completed",
        "video_id": "demo-talk",
        "deleted": {
            "local": {
                "video": True,
                "audio": True,
                "thumbnail": False,
                "transcript": True,
                "moments": True,
                "clips": 2,
            },
            "gcs": {"audio_files": 0, "clip_files": 0},
            "redis_keys": 1,
            "url_registry": False,
        },
        "errors": None,
    }
    assert await browser.get_json("/api/videos") == []


async def test_a_thumbnail_and_a_source_are_registered_too(
    browser: Browser, conn: Connection, talk: Video, storage: Storage, tmp_path: Path
) -> None:
    picture = await keep(storage, thumbnail_folder_key("demo-talk"), "still.jpg", tmp_path)
    await make_thumbnail(conn, video_id=talk.id, cloud_url=picture)
    await conn.execute("UPDATE videos SET source_url = 'https://cdn.example/talk.mp4'")
    deleted = (await browser.send("DELETE", TALK)).json()["deleted"]
    assert (deleted["local"]["thumbnail"], deleted["url_registry"]) == (True, True)


@pytest.mark.parametrize("kept", EVERY_LOCAL_SKIP)
async def test_a_part_is_kept_where_it_is_asked_for(
    browser: Browser, conn: Connection, talk: Video, storage: Storage, tmp_path: Path, kept: str
) -> None:
    picture = await keep(storage, thumbnail_folder_key("demo-talk"), "still.jpg", tmp_path)
    await make_thumbnail(conn, video_id=talk.id, cloud_url=picture)
    local = (await browser.send("DELETE", f"{TALK}?skip_local_{kept}=true")).json()["deleted"]["local"]
    assert not local[kept]
    others = set(EVERY_LOCAL_SKIP) - {kept, "video", "moments"}  # rows that are kept keep the video they belong to
    assert all(local[name] for name in others)


async def test_live_state_is_kept_where_it_is_asked_for(browser: Browser, talk: Video, redis: Redis) -> None:
    assert (await browser.send("DELETE", f"{TALK}?skip_redis=true")).json()["deleted"]["redis_keys"] == 0
    assert await redis.exists("pipeline:demo-talk:active")


@pytest.mark.parametrize(("stored", "shown"), [("pending", "pending"), ("running", "processing")])
async def test_a_video_that_a_run_works_on_stays(
    browser: Browser, conn: Connection, talk: Video, stored: str, shown: str
) -> None:
    await make_run(conn, video_id=talk.id, status=stored)
    answer = await browser.send("DELETE", TALK)
    assert answer.status_code == 400
    assert detail_of(answer) == (
        f"Cannot delete video while pipeline is active (status: {shown}). Use force=true to delete anyway."
    )
    assert (await browser.send("DELETE", f"{TALK}?force=true")).status_code == 200


async def test_no_video_is_404_and_no_boolean_422(browser: Browser, talk: Video) -> None:
    nobody = await browser.send("DELETE", "/api/videos/nobody")
    assert (nobody.status_code, nobody.json()) == (404, {"detail": "Video not found"})
    assert (await browser.send("DELETE", f"{TALK}?force=perhaps")).status_code == 422
    assert (await browser.get(TALK)).status_code == 200


async def test_an_id_that_begins_another_takes_none_of_its_clips(
    browser: Browser, conn: Connection, talk: Video, storage: Storage, tmp_path: Path
) -> None:
    other = await make_video(conn, identifier="demo-talk_2", cloud_url="file:///library/videos/demo-talk_2.mp4")
    moment = await make_moment(conn, video_id=other.id)
    url = await keep(storage, clip_folder_key("demo-talk_2"), "clip.mp4", tmp_path)
    await make_clip(conn, moment, cloud_url=url)
    await browser.send("DELETE", TALK)
    assert (await storage.stat(url)).size == len(b"media")


DEFAULTS: dict[str, tuple[Any, ...]] = {
    "local": ("This machine", None, False, None, None),
    "minimax": ("MiniMax", None, False, None, None),
    "parakeet": ("Parakeet", None, False, None, None),
    "qwen": ("Qwen3-VL", "qwen3-vl-235b-thinking", False, None, None),
    "qwen3_omni": ("Qwen3-Omini", None, False, 0.95, 20),
    "qwen3_vl_fp8": ("Qwen3-VL-FP8", None, True, None, None),
}


def reports(model: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(model[name] for name in ("name", "model_id", "supports_video", "top_p", "top_k"))


async def test_the_registry_begins_with_the_defaults(browser: Browser) -> None:
    answer = await browser.get_json(MODELS)
    assert answer["count"] == 6
    assert [(model["model_key"], reports(model)) for model in answer["models"]] == list(DEFAULTS.items())
    defaults = await browser.get_json(f"{MODELS}/defaults/all")
    assert {key: reports(model) for key, model in defaults.items()} == DEFAULTS


async def test_a_model_is_made_read_changed_and_deleted(browser: Browser) -> None:
    body = '{"name":"Test","base_url":"http://localhost:8007","model_id":"","top_p":0.5}'
    made = (await browser.send("POST", f"{MODELS}/tst", body)).json()
    assert made == {
        "name": "Test",
        "base_url": "http://localhost:8007",
        "model_id": None,
        "supports_video": False,
        "top_p": 0.5,
        "top_k": None,
        "kind": "chat",
        "has_api_key": False,
        "model_key": "tst",
        "updated_at": made["updated_at"],
    }
    assert await browser.get_json(f"{MODELS}/tst") == made
    changed = (await browser.send("PATCH", f"{MODELS}/tst", '{"top_k":20,"name":null}')).json()
    assert (changed["name"], changed["top_p"], changed["top_k"]) == ("Test", 0.5, 20)
    assert changed["updated_at"] > made["updated_at"]
    deleted = await browser.send("DELETE", f"{MODELS}/tst")
    assert deleted.json() == {
        "success": True,
        "model_key": "tst",
        "message": "Model config 'tst' deleted successfully",
    }


async def test_a_model_that_is_not_there_is_404_with_those_that_are(browser: Browser) -> None:
    for method, body in (("GET", None), ("PATCH", '{"top_k":1}'), ("DELETE", None)):
        answer = await browser.send(method, f"{MODELS}/zzz", body)
        assert answer.status_code == 404
        assert detail_of(answer) == (
            "Model zzz not found; there are: local, minimax, parakeet, qwen, qwen3_omni, qwen3_vl_fp8"
        )


async def test_seed_is_an_address_and_no_key(browser: Browser) -> None:
    answer = await browser.send("POST", f"{MODELS}/seed", '{"force":true}')
    assert answer.json() == {"seeded_count": 6, "message": "Seeded 6 model configs"}
    assert (await browser.send("POST", f"{MODELS}/seed", '{"force":false}')).json()["seeded_count"] == 0


@pytest.mark.parametrize(
    "body",
    [
        '{"base_url":"http://localhost:1"}',
        '{"name":"","base_url":"http://localhost:1"}',
        '{"name":" ","base_url":"http://localhost:1"}',
        '{"name":"x","base_url":"user@gateway"}',
        '{"name":"x","base_url":"http://localhost:1","top_p":1.5}',
        '{"name":"x","base_url":"http://localhost:1","top_k":0}',
        "{}",
    ],
)
async def test_a_model_that_cannot_be_is_422(browser: Browser, body: str) -> None:
    assert (await browser.send("POST", f"{MODELS}/tst", body)).status_code == 422


async def test_a_change_of_nothing_and_a_wrong_method_are_reported_as_such(browser: Browser) -> None:
    assert (await browser.send("PATCH", f"{MODELS}/minimax", "{}")).status_code == 422
    assert (await browser.send("PUT", f"{MODELS}/minimax", "{}")).status_code == 405
