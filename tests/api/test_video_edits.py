"""`PATCH /api/videos/{id}`"""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from redis.asyncio import Redis

from app.database import Connection
from app.repositories import VideoRepository
from tests.api.conftest import open_client
from tests.factories import make_video


@pytest.fixture
async def client(app: FastAPI, redis: Redis) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


async def test_a_title_is_corrected(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", source_url="https://cdn/a.mp4")
    answer = await client.patch("/api/videos/talk", json={"title": "Ein Titel"})
    assert (answer.status_code, answer.json()["title"]) == (200, "Ein Titel")
    assert answer.json() == (await client.get("/api/videos/talk")).json()
    video = await VideoRepository(conn).get_by_identifier("talk")
    assert video is not None
    assert video.source_url == "https://cdn/a.mp4"


async def test_null_forgets_a_title_and_a_source(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="demo-talk", title="Old", source_url="https://cdn/a.mp4")
    answer = await client.patch("/api/videos/demo-talk", json={"title": None, "source_url": None})
    assert answer.json()["title"] == "Demo Talk"
    video = await VideoRepository(conn).get_by_identifier("demo-talk")
    assert video is not None
    assert (video.title, video.source_url) == (None, None)


@pytest.mark.parametrize("url", ["http://h/a", "https://cdn.example/a/My Video_File.MP4?x=1", "gs://bucket/a.mp4"])
async def test_a_source_is_corrected(client: AsyncClient, conn: Connection, url: str) -> None:
    await make_video(conn, identifier="talk")
    assert (await client.patch("/api/videos/talk", json={"source_url": url})).status_code == 200
    video = await VideoRepository(conn).get_by_identifier("talk")
    assert video is not None
    assert video.source_url == url


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        "null",
        "",
        '{"title": 5}',
        '{"title": ""}',
        '{"title": "  "}',
        '{"title": "a\\u0000b"}',
        '{"title": "a\\ud800b"}',
        '{"title": "' + "x" * 501 + '"}',
        '{"titel": "typo"}',
        '{"title": "right", "cloud_url": "file:///etc/passwd"}',
        '{"source_url": "file:///etc/passwd"}',
        '{"source_url": "https://"}',
        '{"source_url": "https://host/\\u0000"}',
        '{"source_url": 7}',
        '{"source_url": NaN}',
    ],
)
async def test_a_change_that_cannot_be_is_422_and_changes_nothing(
    client: AsyncClient, conn: Connection, body: str
) -> None:
    await make_video(conn, identifier="talk", title="Old")
    answer = await client.patch("/api/videos/talk", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    video = await VideoRepository(conn).get_by_identifier("talk")
    assert video is not None
    assert (video.title, video.source_url) == ("Old", None)


@pytest.mark.parametrize("identifier", ["nobody", "a%00b", "%ff", "x" * 3000])
async def test_an_unknown_video_can_be_neither_changed_nor_deleted(client: AsyncClient, identifier: str) -> None:
    changed = await client.patch(f"/api/videos/{identifier}", json={"title": "x"})
    deleted = await client.delete(f"/api/videos/{identifier}")
    for answer in (changed, deleted):
        assert (answer.status_code, answer.json()) == (404, {"detail": "Video not found"})


async def test_a_source_url_that_is_sent_back_as_it_was_shown_stays(client: AsyncClient, conn: Connection) -> None:
    url = "https://user:pass@cdn.example/talk.mp4?sig=abc"
    await make_video(conn, identifier="talk", source_url=url)
    shown = (await client.get("/api/videos/talk/lineage")).json()["source_url"]
    assert shown == "https://…@cdn.example/talk.mp4?sig=…"
    answer = await client.patch("/api/videos/talk", json={"source_url": shown, "title": "New"})
    assert (answer.status_code, answer.json()["title"]) == (200, "New")
    cursor = await conn.execute("SELECT source_url FROM videos")
    assert await cursor.fetchone() == (url,)
    assert (await client.patch("/api/videos/talk", json={"source_url": shown})).status_code == 200
