"""Thumbnails: made once for concurrent requests and processes, and beside other changes."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
import pytest

from app.core.config import Settings
from app.core.errors import (
    ClipNotFound,
    MomentNotFound,
    StorageFull,
    StorageUnavailable,
    ThumbnailNotFound,
    VideoNotFound,
)
from app.database import Connection, Database, get_connection
from app.repositories import ThumbnailRepository, VideoRepository
from app.services.thumbnails import ThumbnailService
from app.storage import OpenFile, ProgressCallback, Storage, StoredFile, open_storage
from tests.database.pools import open_pool, query, within
from tests.factories import make_clip, make_moment, make_thumbnail, make_video
from tests.media.movies import make_colour_movie

RED = (255, 0, 0)


class WatchedStorage(Storage):
    """A storage that counts what is opened, and does something more whenever a file is opened or put."""

    def __init__(self, storage: Storage) -> None:
        self.__dict__.update(storage.__dict__)
        self.openings: list[str] = []
        self.look_ups: list[str] = []
        self.on_open: Callable[[], object] = lambda: None
        self.before_put: Callable[[], Awaitable[object]] | None = None

    def open_blocking(self, url: str) -> BinaryIO:
        self.openings.append(url)
        self.on_open()
        return super().open_blocking(url)

    async def stat(self, url: str) -> StoredFile:
        self.look_ups.append(url)
        return await super().stat(url)

    def open_async(self, url: str) -> AbstractAsyncContextManager[OpenFile]:
        self.look_ups.append(url)
        return super().open_async(url)

    async def put(self, key: str, source: Path, progress: ProgressCallback | None = None) -> StoredFile:
        if self.before_put:
            await self.before_put()
        return await super().put(key, source, progress)


class Shelf:
    """A library of which every part is real, and room for several processes on it."""

    def __init__(self, folder: Path, conn: Connection, url: str) -> None:
        self.folder = folder
        self.conn = conn
        self.url = url
        self.settings = Settings(
            storage_url=(folder / "media").as_uri(), library_dirs=(folder / "library",), data_dir=folder / "data"
        )
        self.storage = WatchedStorage(open_storage(self.settings))
        self.thumbnails = self.start_process()

    def start_process(self) -> ThumbnailService:
        return ThumbnailService(Database(get_connection), self.storage)

    @property
    def files(self) -> list[str]:
        """The pictures that are stored."""
        return sorted(path.name for path in (self.folder / "media" / "thumbnails").rglob("*") if path.is_file())

    async def add_video(self, identifier: str = "talk") -> int:
        video_file = make_colour_movie(self.folder / "library" / "videos" / f"{identifier}.mp4", 2, [RED])
        return (await make_video(self.conn, identifier=identifier, cloud_url=video_file.as_uri())).id

    async def add_clip(self, video_id: int) -> str:
        """Return the moment's identifier."""
        moment = await make_moment(self.conn, video_id=video_id)
        video_file = make_colour_movie(self.folder / "library" / "moment_clips" / f"{moment.identifier}.mp4", 1, [RED])
        await make_clip(self.conn, moment, cloud_url=video_file.as_uri())
        return moment.identifier

    async def list_rows(self) -> list[str]:
        cursor = await self.conn.execute("SELECT cloud_url FROM thumbnails ORDER BY id")
        return [url for (url,) in await cursor.fetchall()]


async def url_of_video(thumbnails: ThumbnailService, identifier: str) -> str:
    async with thumbnails.open_or_make_video_thumbnail(identifier) as file:
        return file.stored.url


async def url_of_clip(thumbnails: ThumbnailService, video: str, moment: str) -> str:
    async with thumbnails.open_or_make_clip_thumbnail(video, moment) as file:
        return file.stored.url


@pytest.fixture
async def shelf(tmp_path: Path, own_database_url: str) -> AsyncIterator[Shelf]:
    async with open_pool(own_database_url), aclosing(get_connection()) as connections:
        shelf = Shelf(tmp_path, await anext(connections), own_database_url)
        yield shelf
        await shelf.thumbnails.aclose()
        await shelf.storage.aclose()


async def test_forty_concurrent_requests_share_one_thumbnail(shelf: Shelf) -> None:
    await shelf.add_video()
    urls = await asyncio.gather(*(url_of_video(shelf.thumbnails, "talk") for _ in range(40)))
    assert [*set(urls)] == await shelf.list_rows()
    assert len(shelf.storage.openings) == len(shelf.files) == 1


async def test_an_existing_thumbnail_is_not_made_again(shelf: Shelf) -> None:
    await shelf.add_video()
    url = await url_of_video(shelf.thumbnails, "talk")
    assert await url_of_video(shelf.start_process(), "talk") == url
    assert len(shelf.storage.openings) == 1


async def test_the_row_has_the_size_of_the_thumbnail(shelf: Shelf) -> None:
    video_id = await shelf.add_video()
    file = await shelf.storage.stat(await url_of_video(shelf.thumbnails, "talk"))
    row = await ThumbnailRepository(shelf.conn).get_by_video(video_id)
    assert row is not None
    assert (row.file_size_kb, row.cloud_url) == (-(-file.size // 1024), file.url)


async def test_two_processes_that_make_the_same_thumbnail_store_one(shelf: Shelf) -> None:
    await shelf.add_video()
    both = asyncio.Barrier(2)
    shelf.storage.before_put = both.wait
    processes = [shelf.start_process(), shelf.start_process()]
    urls = await asyncio.gather(*(url_of_video(process, "talk") for process in processes))
    assert len(shelf.storage.openings) == 2
    assert [*set(urls)] == await shelf.list_rows()
    assert len(shelf.files) == 1


async def test_a_cancelled_request_leaves_the_thumbnail_to_the_others(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.add_video()
    go_on, askers = threading.Event(), list[object]()
    shelf.storage.on_open = go_on.wait
    monkeypatch.setattr(shelf.thumbnails, "_raise_recent_failure", askers.append)  # before one shares what is made
    first = asyncio.create_task(url_of_video(shelf.thumbnails, "talk"))
    second = asyncio.create_task(url_of_video(shelf.thumbnails, "talk"))
    assert await within(60, lambda: shelf.storage.openings and len(askers) == 2)
    first.cancel()
    go_on.set()
    assert await second == (await shelf.list_rows())[0]
    assert first.cancelled()
    assert len(shelf.storage.openings) == 1


async def test_a_video_deleted_meanwhile_leaves_no_thumbnail(shelf: Shelf) -> None:
    video_id = await shelf.add_video()

    async def delete() -> None:
        await VideoRepository(shelf.conn).delete(video_id)

    shelf.storage.before_put = delete
    with pytest.raises(ThumbnailNotFound):
        await url_of_video(shelf.thumbnails, "talk")
    assert shelf.files == []


async def test_a_video_whose_deletion_is_in_progress_leaves_no_thumbnail(shelf: Shelf) -> None:
    video_id = await shelf.add_video()
    is_deleted = asyncio.Event()

    async def delete_slowly() -> None:
        async with Database(get_connection).connect() as conn, conn.transaction():
            await VideoRepository(conn).delete(video_id)
            is_deleted.set()
            await asyncio.sleep(0.2)

    async def begin() -> None:
        tasks.append(asyncio.create_task(delete_slowly()))
        await is_deleted.wait()

    tasks: list[asyncio.Task[None]] = []
    shelf.storage.before_put = begin
    with pytest.raises(ThumbnailNotFound):
        await url_of_video(shelf.thumbnails, "talk")
    await tasks[0]
    assert shelf.files == []


async def test_a_thumbnail_made_by_another_process_meanwhile_is_not_made_again(shelf: Shelf) -> None:
    class SlowDatabase(Database):
        checkouts = 0

        @asynccontextmanager
        async def connect(self) -> AsyncIterator[Connection]:
            self.checkouts += 1
            if self.checkouts == 2:
                await url_of_video(shelf.thumbnails, "talk")
            async with super().connect() as conn:
                yield conn

    await shelf.add_video()
    slow = ThumbnailService(SlowDatabase(get_connection), shelf.storage)
    assert [await url_of_video(slow, "talk")] == await shelf.list_rows()
    assert len(shelf.storage.openings) == 1


async def test_a_row_that_cannot_be_written_leaves_no_thumbnail(shelf: Shelf) -> None:
    await shelf.add_video()

    async def break_table() -> None:
        await shelf.conn.execute("ALTER TABLE thumbnails RENAME TO others")

    shelf.storage.before_put = break_table
    with pytest.raises(psycopg.errors.UndefinedTable):
        await url_of_video(shelf.thumbnails, "talk")
    assert shelf.files == []


async def test_an_undecodable_file_is_not_decoded_for_every_card(shelf: Shelf) -> None:
    video_id = await shelf.add_video()
    video_file = shelf.folder / "library" / "videos" / "talk.mp4"
    video_file.write_bytes(b"no film any more")
    for _ in range(5):
        with pytest.raises(ThumbnailNotFound):
            await url_of_video(shelf.thumbnails, "talk")
    assert len(shelf.storage.openings) == 1
    another = make_colour_movie(video_file.with_name("another.mp4"), 2, [RED])
    await VideoRepository(shelf.conn).update(video_id, cloud_url=another.as_uri())
    assert await url_of_video(shelf.thumbnails, "talk")


async def test_the_log_names_the_video_without_a_thumbnail_by_its_identifier(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    await shelf.add_video()
    (shelf.folder / "library" / "videos" / "talk.mp4").write_bytes(b"no film any more")
    with pytest.raises(ThumbnailNotFound):
        await url_of_video(shelf.thumbnails, "talk")
    (line,) = (message for message in caplog.messages if "Cannot make a thumbnail" in message)
    assert line.startswith("Cannot make a thumbnail of the video 'talk': ")


@pytest.mark.parametrize("error", [StorageFull, StorageUnavailable])
async def test_a_storage_that_rejects_thumbnails_costs_one_decoding_and_its_error_is_reported(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, error: type[StorageFull | StorageUnavailable]
) -> None:
    monkeypatch.setattr("app.services.thumbnails._STORAGE_FAILURE_SECONDS", 300.0)
    thumbnails = shelf.start_process()

    async def refuse() -> None:
        raise error("There is no place for it")

    shelf.storage.before_put = refuse
    for number in range(3):
        await shelf.add_video(f"talk-{number}")
        for _ in range(2):
            with pytest.raises(error, match="no place"):
                await url_of_video(thumbnails, f"talk-{number}")
    assert len(shelf.storage.openings) == 1
    assert (shelf.files, await shelf.list_rows()) == ([], [])
    shelf.storage.before_put = None
    thumbnails._storage_failures.expire(time.monotonic() + 301)
    assert await url_of_video(thumbnails, "talk-0")
    await thumbnails.aclose()


async def test_a_video_in_an_unavailable_store_is_reported_and_blocks_no_other_thumbnail(
    shelf: Shelf,
) -> None:
    await shelf.add_video()
    await shelf.add_video("other")

    def refuse() -> None:
        raise StorageUnavailable("The bucket does not answer")

    shelf.storage.on_open = refuse
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="bucket"):
            await url_of_video(shelf.thumbnails, "talk")
    assert len(shelf.storage.openings) == 1
    shelf.storage.on_open = lambda: None
    assert await url_of_video(shelf.thumbnails, "other")


async def test_a_thumbnail_is_looked_up_once(shelf: Shelf) -> None:
    await shelf.add_video()
    await url_of_video(shelf.thumbnails, "talk")
    shelf.storage.look_ups.clear()
    url = await url_of_video(shelf.thumbnails, "talk")
    assert shelf.storage.look_ups == [url]


async def test_thumbnails_are_made_again_after_closing(shelf: Shelf) -> None:
    for name in ("talk", "other"):
        await shelf.add_video(name)
        assert await url_of_video(shelf.thumbnails, name)
        await shelf.thumbnails.aclose()


async def test_a_thumbnail_of_a_missing_library_is_replaced_outside_the_library(shelf: Shelf) -> None:
    video_id = await shelf.add_video()
    gone = shelf.folder / "library" / "thumbnails" / "talk.jpg"
    await make_thumbnail(shelf.conn, video_id=video_id, cloud_url=gone.as_uri())
    url = await url_of_video(shelf.thumbnails, "talk")
    assert shelf.storage.owns(url)
    assert await shelf.list_rows() == [url]
    assert not gone.parent.exists()


async def test_a_row_keeps_its_lost_thumbnail_if_no_other_can_be_made(shelf: Shelf) -> None:
    video = await make_video(shelf.conn, identifier="talk", cloud_url=(shelf.folder / "library" / "no.mp4").as_uri())
    lost = (shelf.folder / "library" / "no.jpg").as_uri()
    await make_thumbnail(shelf.conn, video_id=video.id, cloud_url=lost)
    with pytest.raises(ThumbnailNotFound):
        await url_of_video(shelf.thumbnails, "talk")
    assert await shelf.list_rows() == [lost]


async def test_a_clip_has_its_own_thumbnail_named_after_its_moment(shelf: Shelf) -> None:
    video_id = await shelf.add_video()
    moment = await shelf.add_clip(video_id)
    url = await url_of_clip(shelf.thumbnails, "talk", moment)
    assert url != await url_of_video(shelf.thumbnails, "talk")
    assert url == await url_of_clip(shelf.thumbnails, "talk", moment)
    assert [name.startswith(f"{moment}-") for name in shelf.files].count(True) == 1


async def test_a_missing_video_moment_or_clip_has_its_own_error(shelf: Shelf) -> None:
    video_id = await shelf.add_video()
    await shelf.add_video("other")
    moment = await shelf.add_clip(video_id)
    bare = await make_moment(shelf.conn, video_id=video_id)
    cases: list[tuple[str, str, type[Exception]]] = [
        ("nobody", moment, VideoNotFound),
        ("other", moment, MomentNotFound),
        ("talk", "no such", MomentNotFound),
        ("talk", bare.identifier, ClipNotFound),
    ]
    for video, identifier, error in cases:
        with pytest.raises(error):
            await url_of_clip(shelf.thumbnails, video, identifier)


async def test_no_connection_is_held_while_a_video_is_decoded(tmp_path: Path, own_database_url: str) -> None:
    async with open_pool(own_database_url, database_pool_size=1, database_max_overflow=0) as pool:
        go_on = threading.Event()
        async with pool.connection() as conn:
            shelf = Shelf(tmp_path, conn, own_database_url)
            await shelf.add_video()
        shelf.storage.on_open = go_on.wait
        making = asyncio.create_task(url_of_video(shelf.thumbnails, "talk"))
        assert await within(60, lambda: shelf.storage.openings)
        async with pool.connection(timeout=60):
            go_on.set()
        assert await making
        await shelf.thumbnails.aclose()


async def test_few_videos_are_decoded_at_the_same_time(shelf: Shelf) -> None:
    for number in range(6):
        await shelf.add_video(f"talk-{number}")
    threads: set[Any] = set()

    def note_thread() -> None:
        threads.add(threading.current_thread())
        time.sleep(0.05)

    shelf.storage.on_open = note_thread
    await asyncio.gather(*(url_of_video(shelf.thumbnails, f"talk-{number}") for number in range(6)))
    assert 1 <= len(threads) <= 2
    assert query(shelf.url, "SELECT count(*) FROM thumbnails") == 6


async def test_a_stopping_server_waits_for_no_decoding(shelf: Shelf) -> None:
    await shelf.add_video()
    go_on = threading.Event()
    shelf.storage.on_open = go_on.wait
    making = asyncio.create_task(url_of_video(shelf.thumbnails, "talk"))
    assert await within(60, lambda: shelf.storage.openings)
    async with asyncio.timeout(60):
        await shelf.thumbnails.aclose()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await making
