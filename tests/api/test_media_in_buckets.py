"""Streams of videos that lie in a bucket: the bucket sends them."""

from pathlib import Path

import pytest
from httpx import AsyncClient, Response

from app.core.config import Settings
from app.database import Connection
from tests.factories import make_clip, make_moment, make_video
from tests.google_emulator import Emulator

CONTENT = bytes(range(256))
NAME = "videos/a talk #1 100%.webm"


@pytest.fixture
def settings(bucket: str, tmp_path: Path) -> Settings:
    return Settings(log_level="error", data_dir=tmp_path / "data", storage_url=f"gs://{bucket}", signed_url_seconds=600)


@pytest.fixture(autouse=True)
async def _video(conn: Connection, emulator: Emulator, bucket: str) -> None:
    emulator.put(bucket, NAME, CONTENT)
    video = await make_video(conn, identifier="talk", cloud_url=f"gs://{bucket}/{NAME}")
    moment = await make_moment(conn, identifier="moment", video_id=video.id)
    await make_clip(conn, moment, cloud_url=video.cloud_url)


async def get_directly(address: str, **headers: str) -> Response:
    async with AsyncClient() as client:
        return await client.get(address, headers=headers)


@pytest.mark.parametrize("path", ["/api/videos/talk/stream", "/api/videos/talk/moments/moment/clip"])
async def test_a_stream_leads_to_where_the_bucket_sends_it(client: AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["Cache-Control"] == "private, max-age=240"
    video_file = await get_directly(answer.headers["Location"], range="bytes=5-9")
    assert (video_file.status_code, video_file.content) == (206, CONTENT[5:10])


async def test_the_address_of_a_video_says_how_long_it_is_good(client: AsyncClient) -> None:
    answer = await client.get("/api/videos/talk/url")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert 0 < answer.json()["expires_in_seconds"] <= 600
    assert (await get_directly(answer.json()["url"])).content == CONTENT


async def test_head_is_answered_here_because_a_signature_is_for_get(client: AsyncClient) -> None:
    answer = await client.head("/api/videos/talk/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Content-Type"] == "video/webm"


async def test_a_file_that_is_not_in_its_bucket_is_404(client: AsyncClient, conn: Connection, bucket: str) -> None:
    await make_video(conn, identifier="gone", cloud_url=f"gs://{bucket}/gone.mp4")
    for path in ("stream", "url"):
        answer = await client.get(f"/api/videos/gone/{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "File not found"})
