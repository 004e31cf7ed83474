"""Media in a local folder."""

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import pytest

from app.core.errors import FileMissing
from app.storage import Storage
from tests.storage.stores import files_in, make_file, open_files, read_all


async def test_what_is_put_is_read_back(storage: Storage, tmp_path: Path) -> None:
    source = make_file(tmp_path / "source.mp4", bytes(range(256)) * 5000)

    stored = await storage.put("videos/film/a.mp4", source)

    assert stored.size == 1_280_000
    assert stored.url == storage.url_of("videos/film/a.mp4")
    assert await read_all(storage, stored.url) == source.read_bytes()
    with storage.open_blocking(stored.url) as file:
        file.seek(-4, os.SEEK_END)
        assert file.read() == bytes([252, 253, 254, 255])


async def test_a_source_outside_stays_where_it_is(storage: Storage, tmp_path: Path) -> None:
    source = make_file(tmp_path / "source.mp4")
    await storage.put("videos/film/a.mp4", source)
    assert source.exists()
    assert files_in(tmp_path / "media") == ["videos/film/a.mp4"]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 4, b"0123"), (6, None, b"6789"), (3, 3, b""), (8, 99, b"89"), (10, None, b""), (99, 120, b"")],
)
async def test_a_part_is_read_up_to_the_end_of_the_file(
    storage: Storage, tmp_path: Path, start: int, stop: int | None, expected: bytes
) -> None:
    stored = await storage.put("a/b", make_file(tmp_path / "source", b"0123456789"))
    assert await read_all(storage, stored.url, start, stop) == expected


async def test_a_part_far_into_a_huge_file_is_read_at_once(storage: Storage, tmp_path: Path) -> None:
    path = make_file(tmp_path / "library" / "huge.mp4")
    with path.open("r+b") as file:
        file.truncate(10 * 1024**3)
        file.seek(9 * 1024**3)
        file.write(b"here")
    assert await read_all(storage, path.as_uri(), 9 * 1024**3, 9 * 1024**3 + 5) == b"here\0"


async def test_no_file_stays_open_when_a_reader_goes_away(storage: Storage, tmp_path: Path) -> None:
    stored = await storage.put("a/b", make_file(tmp_path / "source", bytes(3_000_000)))
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        async with storage.open_async(stored.url) as file, contextlib.aclosing(file.read()) as chunks:
            await anext(chunks)
        reader = asyncio.create_task(read_all(storage, stored.url))
        await asyncio.sleep(0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
    async with asyncio.timeout(60):
        while len(os.listdir("/dev/fd")) != before:  # noqa: ASYNC110  threads close what was left to them
            await asyncio.sleep(0.01)


async def test_many_slow_readers_do_not_keep_others_waiting(storage: Storage, tmp_path: Path) -> None:
    stored = await storage.put("a/b", make_file(tmp_path / "source", bytes(1_000_000)))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(100):  # each has begun and takes no more for now
            file = await stack.enter_async_context(storage.open_async(stored.url))
            chunks = await stack.enter_async_context(contextlib.aclosing(file.read()))
            await anext(chunks)
        async with asyncio.timeout(60):
            assert (await storage.stat(stored.url)).size == 1_000_000
            assert len(await read_all(storage, stored.url)) == 1_000_000


async def test_another_content_has_another_version(storage: Storage, tmp_path: Path) -> None:
    first = await storage.put("a/b", make_file(tmp_path / "one", b"one"))
    assert (await storage.stat(first.url)).version == first.version
    second = await storage.put("a/b", make_file(tmp_path / "two", b"two"))
    assert second.version != first.version
    assert await read_all(storage, first.url) == b"two"


async def test_a_reader_finishes_the_file_that_it_began(storage: Storage, tmp_path: Path) -> None:
    stored = await storage.put("a/b", make_file(tmp_path / "one", b"1" * 1_000_000))
    async with storage.open_async(stored.url) as file, contextlib.aclosing(file.read()) as chunks:
        first = await anext(chunks)
        await storage.put("a/b", make_file(tmp_path / "two", b"2" * 1_000_000))
        assert first + b"".join([chunk async for chunk in chunks]) == b"1" * 1_000_000
        assert file.stored == stored


async def test_a_reader_that_is_left_does_not_stop_the_next_one(storage: Storage, tmp_path: Path) -> None:
    stored = await storage.put("a/b", make_file(tmp_path / "source", bytes(range(250)) * 4000))
    async with storage.open_async(stored.url) as file:
        async with contextlib.aclosing(file.read()) as chunks:
            await anext(chunks)
        assert b"".join([chunk async for chunk in file.read(999_995)]) == bytes([245, 246, 247, 248, 249])


async def test_the_same_bytes_are_not_written_again(storage: Storage, tmp_path: Path) -> None:
    source = make_file(tmp_path / "source", bytes(3_000_000))
    first = await storage.put("a/b", source)
    reports: list[int] = []
    again = await storage.put("a/b", source, reports.append)
    assert again == first
    assert reports == [3_000_000]


async def test_other_bytes_of_the_same_size_are_written(storage: Storage, tmp_path: Path) -> None:
    await storage.put("a/b", make_file(tmp_path / "source", b"old"))
    stored = await storage.put("a/b", make_file(tmp_path / "source", b"new"))
    assert await read_all(storage, stored.url) == b"new"


async def test_progress_adds_up_to_the_size(storage: Storage, tmp_path: Path) -> None:
    reports: list[int] = []
    await storage.put("a/b", make_file(tmp_path / "source", bytes(5_500_000)), reports.append)
    assert sum(reports) == 5_500_000
    assert len(reports) > 3


async def test_an_empty_file_is_a_file(storage: Storage, tmp_path: Path) -> None:
    stored = await storage.put("a/b", make_file(tmp_path / "source", b""))
    assert stored.size == 0
    assert await read_all(storage, stored.url) == b""


async def test_a_missing_source_is_reported(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        await storage.put("a/b", tmp_path / "nothing")
    assert not (tmp_path / "media").exists()


async def test_files_are_listed_by_key(storage: Storage, tmp_path: Path) -> None:
    source = make_file(tmp_path / "source")
    for key in ("clips/film/b.mp4", "clips/film/a.mp4", "clips/films/c.mp4", "clips/film/deep/d.mp4"):
        await storage.put(key, source)
    listed = [file.url for file in await storage.list_files("clips/film")]
    keys = ("clips/film/a.mp4", "clips/film/b.mp4", "clips/film/deep/d.mp4")
    assert listed == [storage.url_of(key) for key in keys]
    assert await storage.list_names("clips") == {"film", "films"}
    assert await storage.list_names("clips/film") == {"a.mp4", "b.mp4", "deep"}


async def test_a_folder_that_is_not_there_holds_nothing(storage: Storage) -> None:
    assert await storage.list_files("clips/film") == []
    assert await storage.list_names("clips") == set()


async def test_deleting_leaves_no_empty_folder(storage: Storage, tmp_path: Path) -> None:
    source = make_file(tmp_path / "source")
    one = await storage.put("clips/film/deep/a.mp4", source)
    other = await storage.put("clips/film/b.mp4", source)

    assert await storage.delete(one.url)
    assert not (tmp_path / "media/clips/film/deep").exists()
    assert not await storage.delete(one.url)
    assert await storage.delete(other.url)
    assert not (tmp_path / "media/clips").exists()
    with pytest.raises(FileMissing):
        await storage.stat(other.url)


async def test_files_of_a_library_are_read_and_never_changed(storage: Storage, tmp_path: Path) -> None:
    path = make_file(tmp_path / "library" / "videos" / "a b#?.mp4", b"theirs")
    assert await read_all(storage, path.as_uri()) == b"theirs"
    assert not storage.owns(path.as_uri())
    assert not await storage.delete(path.as_uri())
    assert path.read_bytes() == b"theirs"


async def test_a_library_is_readable_as_soon_as_an_import_notes_it(storage: Storage, tmp_path: Path) -> None:
    path = make_file(tmp_path / "later" / "a.mp4")
    with pytest.raises(FileMissing):
        await storage.stat(path.as_uri())

    open_files(tmp_path).libraries.add_folder(tmp_path / "later")  # as another process does

    assert (await storage.stat(path.as_uri())).size == path.stat().st_size


@pytest.mark.parametrize("noted", [".", "media", "link", "media/videos/film"])
async def test_what_an_import_found_where_the_own_files_lie_stays_the_users(
    storage: Storage, tmp_path: Path, noted: str
) -> None:
    (tmp_path / "link").symlink_to("media")
    video_file = make_file(tmp_path / "media/videos/film/a.mp4")
    storage.libraries.add_folder(tmp_path / noted)
    assert not storage.owns(video_file.as_uri())
    assert await storage.delete(video_file.as_uri()) is False
    assert video_file.exists()


async def test_a_deletion_looks_for_libraries_in_a_thread(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, list_libraries = set(), storage.libraries.list_folders

    def watch() -> tuple[Path, ...]:
        threads.add(threading.current_thread())
        return list_libraries()

    stored = await storage.put("a/b", make_file(tmp_path / "source"))
    monkeypatch.setattr(storage.libraries, "list_folders", watch)
    assert await storage.delete(stored.url)
    assert threads
    assert threading.current_thread() not in threads


async def test_a_library_inside_the_own_folder_stays_the_users(storage: Storage, tmp_path: Path) -> None:
    path = make_file(tmp_path / "media" / "static" / "a.mp4")
    assert storage.owns(path.as_uri())
    storage.libraries.add_folder(tmp_path / "media" / "static")
    assert not storage.owns(path.as_uri())
    assert not await storage.delete(path.as_uri())
    assert (await storage.stat(path.as_uri())).size == path.stat().st_size


async def test_a_file_that_may_not_be_read_is_no_missing_file(storage: Storage, tmp_path: Path) -> None:
    path = make_file(tmp_path / "library" / "a.mp4")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(Exception, match="The file cannot be read: permission denied"):
        await storage.stat(path.as_uri())


async def test_storage_can_be_used_again_after_it_was_closed(storage: Storage, tmp_path: Path) -> None:
    stored = await storage.put("a/b", make_file(tmp_path / "source"))
    await storage.aclose()
    assert (await storage.stat(stored.url)).version == stored.version
