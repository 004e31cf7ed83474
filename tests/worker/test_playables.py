"""Copies that browsers play: of which videos they are made, once, and what becomes of them."""

import asyncio
import errno
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.config import Settings
from app.database import Connection, Database
from app.media import playable_copy
from app.media.probe import MediaInfo, probe_media
from app.models import Video
from app.repositories import VideoRepository
from app.repositories.media import MediaUrlRepository, PlayableCopyRepository
from app.storage import Storage, StoredFile, open_storage, path_from_url
from app.worker.playables import PlayableCopyMaker
from app.worker.timings import DEFAULT_TIMINGS
from tests.factories import make_video
from tests.media.movies import make_movie
from tests.media.test_truncation import cut_off, make_noise
from tests.pipeline.contexts import open_database

# No worker is taken for dead, however long it has to wait for a processor.
TIMINGS = replace(DEFAULT_TIMINGS, heartbeat_interval=0.05, stalled_after=3600.0)


class Library:
    """A database, a storage, and any number of workers that make copies."""

    def __init__(self, settings: Settings, database: Database, storage: Storage, folder: Path) -> None:
        self.settings = settings
        self.database = database
        self.storage = storage
        self.folder = folder

    def worker(self, name: str = "one") -> PlayableCopyMaker:
        return PlayableCopyMaker(self.settings, self.database, self.storage, name, TIMINGS)

    async def add(self, name: str, video_codec: str | None, audio_codec: str | None, container: str) -> Video:
        path = await asyncio.to_thread(
            make_movie, self.folder / "library" / name, 1.0, video_codec, audio_codec, container
        )
        info = await asyncio.to_thread(probe_media, path)
        async with self.database.connect() as conn:
            return await make_video(
                conn,
                identifier="talk",
                cloud_url=path.as_uri(),
                duration_seconds=info.duration_seconds,
                video_codec=info.video_codec,
                audio_codec=info.audio_codec,
            )

    async def status(self) -> tuple[str, str | None] | None:
        async with self.database.connect() as conn:
            cursor = await conn.execute("SELECT status, reason FROM library.video_files")
            row: tuple[str, str | None] | None = await cursor.fetchone()
        return row

    async def miss(self) -> None:
        """Make what the worker at the video was seen at last long ago."""
        async with self.database.connect() as conn:
            await conn.execute("UPDATE library.video_files SET seen_at = seen_at - interval '1 day'")

    async def copies(self) -> list[str]:
        return [file.url for file in await self.storage.list_files("playable")]

    async def played(self) -> MediaInfo:
        """What a client is sent of the video."""
        async with self.database.connect() as conn:
            urls = (await MediaUrlRepository(conn).get_video_file_urls(["talk"]))["talk"]
        return await asyncio.to_thread(probe_media, path_from_url(urls[0]))


@pytest.fixture
async def library(own_database_url: str, tmp_path: Path) -> AsyncIterator[Library]:
    settings = Settings(
        database_url=own_database_url,
        data_dir=tmp_path / "data",
        storage_url=(tmp_path / "media").as_uri(),
        library_dirs=(tmp_path / "library",),
    )
    (tmp_path / "library").mkdir()
    storage = open_storage(settings)
    yield Library(settings, open_database(settings), storage, tmp_path)
    await storage.aclose()


@pytest.mark.parametrize(
    ("name", "video_codec", "audio_codec", "container", "codecs"),
    [
        ("talk.avi", "mpeg4", "libmp3lame", "avi", ("h264", "aac")),
        ("talk.mkv", "libx264", "ac3", "matroska", ("h264", "aac")),
        ("talk.ts", "libx264", "aac", "mpegts", ("h264", "aac")),
        ("talk.mkv", "libx265", "aac", "matroska", ("h264", "aac")),
        ("talk.mkv", "libx264", "libmp3lame", "matroska", ("h264", "mp3")),
        ("talk.aiff", None, "pcm_s16be", "aiff", (None, "aac")),
        ("talk.aac", None, "aac", "adts", (None, "aac")),
    ],
)
async def test_a_video_that_browsers_do_not_play_gets_a_copy(
    library: Library,
    name: str,
    video_codec: str | None,
    audio_codec: str,
    container: str,
    codecs: tuple[str | None, str],
) -> None:
    video = await library.add(name, video_codec, audio_codec, container)
    await library.worker().process_waiting_files()
    played = await library.played()
    assert (played.video_codec, played.audio_codec) == codecs
    assert played.format == ("mp4" if video_codec else "m4a")
    assert played.duration_seconds == pytest.approx(video.duration_seconds, abs=0.15)
    assert await library.status() == ("ready", None)
    assert len(await library.copies()) == 1
    assert path_from_url(video.cloud_url).is_file()
    assert list((library.folder / "data" / "playable").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "video_codec", "audio_codec", "container"),
    [
        ("talk.mp4", "libx264", "aac", "mp4"),
        ("talk.mov", "libx264", "aac", "mov"),
        ("talk.webm", "libvpx", "libopus", "webm"),
        ("talk.mp3", None, "libmp3lame", "mp3"),
        ("talk.m4a", None, "aac", "ipod"),
        ("talk.flac", None, "flac", "flac"),
    ],
)
async def test_a_video_that_browsers_play_gets_none(
    library: Library, name: str, video_codec: str | None, audio_codec: str, container: str
) -> None:
    await library.add(name, video_codec, audio_codec, container)
    await library.worker().process_waiting_files()
    assert await library.status() == ("unneeded", None)
    assert await library.copies() == []


@pytest.mark.parametrize(
    ("name", "video_codec", "audio_codec", "container"),
    [("talk.mp4", "libx264", "aac", "mp4"), ("talk.flac", None, "flac", "flac")],
)
async def test_a_video_that_was_cut_off_gets_a_copy_of_the_right_duration(
    library: Library, name: str, video_codec: str | None, audio_codec: str, container: str
) -> None:
    path = make_noise(library.folder / "library" / name, video_codec, audio_codec, container)
    left = cut_off(path)
    async with library.database.connect() as conn:
        video = await make_video(conn, identifier="talk", cloud_url=path.as_uri(), audio_codec=audio_codec)
        await PlayableCopyRepository(conn).store_early_end(video.id, path.as_uri(), 12.0)
    await library.worker().process_waiting_files()
    assert await library.status() == ("ready", None)
    played = await library.played()
    assert played.duration_seconds == pytest.approx(left, abs=0.25)
    assert not played.ends_early


async def test_a_copy_that_cannot_be_written_waits_longer_each_time_and_is_given_up(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    await library.add("talk.avi", "mpeg4", None, "avi")
    monkeypatch.setattr("app.worker.playables.make_playable_copy", fail_for_want_of_room)
    pauses = []
    for _ in range(8):
        async with library.database.connect() as conn:
            await conn.execute("UPDATE library.video_files SET due_at = NULL")
        await library.worker().process_waiting_files()
        async with library.database.connect() as conn:
            cursor = await conn.execute("SELECT due_at - now() AT TIME ZONE 'utc' FROM library.video_files")
            ((pause,),) = await cursor.fetchall()
        pauses += [round(pause.total_seconds() / 60)] if pause else []
    assert pauses == [10, 20, 40, 80, 160, 320, 640]
    reason = "The playable copy cannot be written: No space left on device"
    assert await library.status() == ("failed", reason)


def fail_for_want_of_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/data/playable/1-a/copy.mp4")


async def test_a_copy_that_another_worker_has_stored_meanwhile_stays(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = await library.add("talk.avi", "mpeg4", None, "avi")
    worker = library.worker()
    finish = worker._store_file_status

    async def finish_and_store_another(*arguments: Any) -> None:
        await finish(*arguments)
        await library.storage.put("playable/talk/other.mp4", path_from_url(video.cloud_url))

    monkeypatch.setattr(worker, "_store_file_status", finish_and_store_another)
    await worker.process_waiting_files()
    assert [url.endswith("/other.mp4") for url in sorted(await library.copies())] == [False, True]


async def test_what_dead_workers_have_left_of_deleted_videos_goes_with_the_next_copy(library: Library) -> None:
    folder = library.folder / "data" / "playable"
    async with library.database.connect() as conn:
        other = await make_video(conn, identifier="other")
        await conn.execute(
            """
            INSERT INTO library.video_files (video_id, source_url, status, owner, seen_at)
            VALUES (%(id)s, 'file:///other.avi', 'making', 'two', now() AT TIME ZONE 'utc')
            """,
            {"id": other.id},
        )
    (folder / "999-dead").mkdir(parents=True)
    (folder / f"{other.id}-alive").mkdir()
    await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    await library.worker().process_waiting_files()
    assert [path.name for path in folder.iterdir()] == [f"{other.id}-alive"]


async def test_workers_at_once_make_one_copy(library: Library) -> None:
    await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    await asyncio.gather(*(library.worker(f"worker-{number}").process_waiting_files() for number in range(6)))
    assert await library.status() == ("ready", None)
    assert len(await library.copies()) == 1


async def test_a_copy_whose_worker_died_is_made_by_another(library: Library) -> None:
    await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    await library.storage.put("playable/talk/left.mp4", library.folder / "library" / "talk.avi")
    died = library.worker("died")
    assert await died._claim_video_file() is not None
    other = library.worker("other")
    await other.process_waiting_files()
    assert await library.status() == ("inspecting", None)
    await library.miss()
    await other.process_waiting_files()
    assert await library.status() == ("ready", None)
    (copy,) = await library.copies()
    assert not copy.endswith("left.mp4")


async def test_a_file_on_which_workers_die_is_given_up_and_named_once(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    for number in range(3):
        assert await library.worker(f"died-{number}")._claim_video_file() is not None
        await library.miss()
    for _ in range(2):
        await library.worker().process_waiting_files()
    reason = "The worker died 3 times while it made a playable copy"
    assert await library.status() == ("failed", reason)
    assert [message for message in caplog.messages if "playable" in message] == [
        f"No playable copy of 'talk': {reason}"
    ]


async def test_a_damaged_file_fails_once(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    video = await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    path_from_url(video.cloud_url).write_bytes(b"\0" * 5000)
    for _ in range(2):
        await library.worker().process_waiting_files()
    assert await library.status() == ("failed", "No playable copy can be made: the file is damaged")
    assert sum("playable" in message for message in caplog.messages) == 1


async def test_a_failure_leaves_no_connection_of_a_heartbeat_half_open(library: Library) -> None:
    """PostgreSQL waits up to a minute for one, before a database can be dropped."""
    video = await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    path_from_url(video.cloud_url).write_bytes(b"\0" * 5000)
    gc.disable()
    try:
        before = _count_open_sockets()
        await library.worker().process_waiting_files()
        assert _count_open_sockets() == before
    finally:
        gc.enable()


async def test_a_copy_is_done_only_once_its_heartbeats_have_let_go_of_their_connections(library: Library) -> None:
    open_now, slowly_closed = 0, 0

    async def open_connection() -> AsyncGenerator[Connection, None]:
        nonlocal open_now, slowly_closed
        async with library.database.connect() as conn:
            open_now += 1
            try:
                yield conn
            except GeneratorExit:  # the heartbeat is cancelled
                await asyncio.sleep(1)
                slowly_closed += 1
                raise
            finally:
                open_now -= 1

    async def wait_in_heartbeat(*_: object) -> None:
        await asyncio.sleep(60)

    async def put_once_a_heartbeat_is_sent(key: str, path: Path) -> StoredFile:
        async with asyncio.timeout(60):
            while open_now == 0:  # noqa: ASYNC110  no event is set
                await asyncio.sleep(0.01)
        return await put(key, path)

    await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    worker = PlayableCopyMaker(library.settings, Database(open_connection), library.storage, "one", TIMINGS)
    put = library.storage.put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlayableCopyRepository, "store_status_and_heartbeat", wait_in_heartbeat)
        patch.setattr(library.storage, "put", put_once_a_heartbeat_is_sent)
        await worker.process_waiting_files()
    assert open_now == 0
    assert slowly_closed > 0
    assert await library.status() == ("ready", None)


def _count_open_sockets() -> int:
    return len([file for file in Path("/proc/self/fd").iterdir() if file.is_socket()])


async def test_another_file_of_the_video_gets_another_copy(library: Library) -> None:
    video = await library.add("talk.avi", "mpeg4", "libmp3lame", "avi")
    await library.worker().process_waiting_files()
    (first,) = await library.copies()
    other = await asyncio.to_thread(make_movie, library.folder / "library" / "other.mkv", 2.0, "libx264", "ac3")
    async with library.database.connect() as conn:
        await VideoRepository(conn).update(video.id, cloud_url=other.as_uri())
        assert (await MediaUrlRepository(conn).get_video_file_urls(["talk"]))["talk"] == (other.as_uri(),)
    await library.worker().process_waiting_files()
    (second,) = await library.copies()
    assert first != second
    assert (await library.played()).duration_seconds == pytest.approx(2.0, abs=0.1)


@asynccontextmanager
async def making_slowly(library: Library, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker in the middle of a copy that takes much longer than a test."""
    monkeypatch.setattr(playable_copy, "_LIMIT_SECONDS", 3600.0)
    video = await library.add("talk.avi", "mpeg4", None, "avi")
    copy = playable_copy.PlayableCopyPlan(100_000.0, False, False, False)
    monkeypatch.setattr("app.worker.playables.plan_playable_copy", lambda *_: copy)
    task = asyncio.create_task(library.worker().process_waiting_files())
    async with asyncio.timeout(60):
        while await library.status() != ("making", None):  # noqa: ASYNC110  no event is set
            await asyncio.sleep(0.05)
    assert video.identifier == "talk"
    yield task


async def delete_row(conn: Connection) -> None:
    video = await VideoRepository(conn).get_by_identifier("talk")
    assert video is not None
    await VideoRepository(conn).delete(video.id)


async def test_deleting_a_video_ends_the_making_of_its_copy(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    async with making_slowly(library, monkeypatch) as task:
        async with library.database.connect() as conn:
            await delete_row(conn)
        async with asyncio.timeout(60):
            await task
    assert await library.copies() == []
    assert list((library.folder / "data" / "playable").iterdir()) == []


async def test_a_worker_that_ends_leaves_the_copy_to_the_next(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with making_slowly(library, monkeypatch) as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await library.status() == ("waiting", None)
    monkeypatch.undo()
    await library.worker("next").process_waiting_files()
    assert await library.status() == ("ready", None)
