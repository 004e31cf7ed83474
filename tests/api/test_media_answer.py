"""How little of a file is looked at for an answer."""

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.database import Connection
from app.resources import Resources
from app.storage import OpenFile, Storage
from tests.factories import make_clip, make_moment, make_thumbnail, make_video

SIZE = 5000
STREAM = "/api/videos/talk/stream"


class WatchedFile:
    """A file that notes what is read of it, and does something more before."""

    def __init__(self, file: OpenFile, on_read: Callable[[], object]) -> None:
        self.stored = file.stored
        self.reads: list[tuple[int, int | None]] = []
        self._file = file
        self._on_read = on_read

    def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        self.reads.append((start, stop))
        self._on_read()
        return self._file.read(start, stop)


class WatchedStorage(Storage):
    """A storage that notes what is opened."""

    def __init__(self, storage: Storage) -> None:
        self.__dict__.update(storage.__dict__)
        self.files: list[WatchedFile] = []
        self.on_read: Callable[[], object] = lambda: None

    @asynccontextmanager
    async def open_async(self, url: str) -> AsyncIterator[OpenFile]:
        async with super().open_async(url) as file:
            self.files.append(WatchedFile(file, self.on_read))
            yield self.files[-1]


@pytest.fixture
async def video(conn: Connection, tmp_path: Path) -> Path:
    path = tmp_path / "library" / "talk.mp4"
    path.parent.mkdir()
    path.write_bytes(bytes(SIZE))
    await make_video(conn, identifier="talk", cloud_url=path.as_uri())
    return path


@pytest.fixture
def storage(app: FastAPI) -> WatchedStorage:
    resources: Resources = app.state.resources
    storage = WatchedStorage(resources.storage)
    app.state.resources = dataclasses.replace(resources, storage=storage)
    return storage


def replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


@pytest.mark.usefixtures("video")
async def test_a_file_is_opened_once_and_its_kind_is_found_out_once(
    client: AsyncClient, storage: WatchedStorage
) -> None:
    for header in ("bytes=1000-1999", "bytes=2000-2999,4000-4999"):
        assert (await client.get(STREAM, headers={"Range": header})).status_code == 206
    one, other = storage.files
    assert one.reads == [(0, 512), (1000, 2000)]
    assert other.reads == [(2000, 3000), (4000, 5000)]


async def test_the_kind_of_another_video_file_in_the_same_place_is_found_out_again(
    client: AsyncClient, video: Path
) -> None:
    assert (await client.head(STREAM)).headers["Content-Type"] == "video/mp4"
    replace(video, b"RIFF1234AVI ")
    assert (await client.head(STREAM)).headers["Content-Type"] == "video/x-msvideo"


@pytest.mark.parametrize(
    "content", [b"<!doctype html><script>alert(1)</script>", b'<svg xmlns="x" onload="alert(1)"/>', b"alert(1)"]
)
async def test_a_file_that_is_no_media_is_an_attachment_at_every_address(
    client: AsyncClient, conn: Connection, tmp_path: Path, content: bytes
) -> None:
    files = [tmp_path / "library" / name for name in ("talk.mp4", "talk.jpg", "clip.mp4", "audios/talk.wav")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    video_file, picture, clip, _ = (file.as_uri() for file in files)
    video = await make_video(conn, identifier="talk", cloud_url=video_file)
    await make_thumbnail(conn, video_id=video.id, cloud_url=picture)
    moment = await make_moment(conn, video_id=video.id, identifier="intro")
    await make_clip(conn, moment, cloud_url=clip)
    paths = (STREAM, "/api/videos/talk/thumbnail", "/static/thumbnails/talk.jpg", "/static/audios/talk.wav")
    for path in (*paths, "/api/videos/talk/moments/intro/clip", "/moment_clips/talk_intro_clip.mp4"):
        answer = await client.get(path)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        part = await client.get(path, headers={"Range": "bytes=0-1,3-4"})
        assert (part.status_code, part.headers["Content-Disposition"]) == (206, "attachment")


@pytest.mark.usefixtures("video")
@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("If-None-Match", "*", 304), ("If-Match", '"other"', 412), ("Range", "bytes=9999-", 416)],
)
async def test_nothing_is_read_for_an_answer_without_the_file(
    client: AsyncClient, storage: WatchedStorage, header: str, value: str, status: int
) -> None:
    assert (await client.get(STREAM, headers={header: value})).status_code == status
    assert [file.reads for file in storage.files] == [[]]


async def test_a_video_file_that_is_replaced_meanwhile_is_sent_as_it_was_promised(
    client: AsyncClient, storage: WatchedStorage, video: Path
) -> None:
    storage.on_read = lambda: replace(video, b"new" * SIZE)
    assert (await client.get(STREAM)).content == bytes(SIZE)
