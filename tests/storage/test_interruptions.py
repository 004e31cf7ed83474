"""Copies that are killed, stopped, or made twice at the same time."""

import asyncio
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from app.core.errors import Conflict
from app.storage import Storage
from app.storage.folder_upload import FolderUpload
from app.storage.incoming import IncomingFolder
from tests.storage.stores import files_in, is_copy, make_file, open_files, read_all

_MIB = 1024 * 1024

# Copies a file and ends as `kill -9` ends a process once half of it is written.
_KILLED_COPY = """
import os, signal, sys
from pathlib import Path
from app.storage.folder_upload import FolderUpload
from app.storage.incoming import IncomingFolder

media, source, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
written = 0

def count(size):
    global written
    written += size
    if written >= limit:
        os.kill(os.getpid(), signal.SIGKILL)

FolderUpload(media, IncomingFolder(media / ".incoming"), "videos/film/a.mp4", source, count).run()
"""


def _kill_in_the_middle(folder: Path, source: Path, after: int) -> Path:
    """Return the draft that a killed copy left."""
    command = [sys.executable, "-c", _KILLED_COPY, str(folder / "media"), str(source), str(after)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (draft,) = (folder / "media" / ".incoming").iterdir()
    return draft


async def _wait_for_files(folder: Path) -> list[str]:
    async with asyncio.timeout(60):
        while not (files := files_in(folder)):  # noqa: ASYNC110  the copy sets no event
            await asyncio.sleep(0.001)
    return files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_file(tmp_path / "source.mp4", os.urandom(20 * _MIB + 7))


async def test_a_killed_copy_shows_nothing_and_goes_on_where_it_was(
    storage: Storage, tmp_path: Path, source: Path
) -> None:
    draft = _kill_in_the_middle(tmp_path, source, after=10 * _MIB)
    assert await storage.list_files("videos") == []
    assert files_in(tmp_path / "media") == [f".incoming/{draft.name}"]
    written, inode = draft.stat().st_size, draft.stat().st_ino
    assert written == 10 * _MIB
    reports: list[int] = []

    stored = await storage.put("videos/film/a.mp4", source, reports.append)

    assert await is_copy(storage, stored.url, source)
    assert (tmp_path / "media/videos/film/a.mp4").stat().st_ino == inode
    assert reports[0] == written
    assert sum(reports) == stored.size
    assert files_in(tmp_path / "media/.incoming") == []


async def test_a_draft_with_other_bytes_is_used_as_far_as_it_is_right(
    storage: Storage, tmp_path: Path, source: Path
) -> None:
    draft = _kill_in_the_middle(tmp_path, source, after=10 * _MIB)
    with draft.open("r+b") as file:  # as a power cut may leave it
        file.seek(5 * _MIB + 10)
        file.write(bytes(100))
    reports: list[int] = []
    stored = await storage.put("videos/film/a.mp4", source, reports.append)
    assert reports[0] == 5 * _MIB
    assert await is_copy(storage, stored.url, source)


async def test_a_draft_of_a_source_that_is_shorter_now_is_cut(storage: Storage, tmp_path: Path, source: Path) -> None:
    _kill_in_the_middle(tmp_path, source, after=10 * _MIB)
    os.truncate(source, 3 * _MIB)
    stored = await storage.put("videos/film/a.mp4", source)
    assert await is_copy(storage, stored.url, source)


async def test_a_cancelled_copy_has_ended_when_the_cancellation_is_seen(
    storage: Storage, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, chunks = FolderUpload._raise_if_stopping, count(1)

    def check_once_stopped(copying: FolderUpload) -> None:
        if next(chunks) == 5:
            copying._stopping.wait(60)
        check(copying)

    monkeypatch.setattr(FolderUpload, "_raise_if_stopping", check_once_stopped)
    put = asyncio.create_task(storage.put("videos/film/a.mp4", source))
    drafts = await _wait_for_files(tmp_path / "media")
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    size = (tmp_path / "media" / drafts[0]).stat().st_size
    await asyncio.sleep(0.05)
    assert files_in(tmp_path / "media") == drafts
    assert (tmp_path / "media" / drafts[0]).stat().st_size == size < 20 * _MIB


async def test_the_same_copy_many_times_at_once_writes_the_file_once(
    storage: Storage, tmp_path: Path, source: Path
) -> None:
    others = [open_files(tmp_path) for _ in range(3)]  # as other processes would
    stored = await asyncio.gather(*(each.put("a/b.mp4", source) for each in (storage, *others) * 3))
    assert len({file.version for file in stored}) == 1
    assert await is_copy(storage, stored[0].url, source)
    assert files_in(tmp_path / "media") == ["a/b.mp4"]
    for other in others:
        await other.aclose()


async def test_two_processes_copying_the_same_file_both_end_well(
    storage: Storage, tmp_path: Path, source: Path
) -> None:
    command = [sys.executable, "-c", _KILLED_COPY, str(tmp_path / "media"), str(source), str(1000 * _MIB)]
    processes = [await asyncio.create_subprocess_exec(*command) for _ in range(3)]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    assert files_in(tmp_path / "media") == ["videos/film/a.mp4"]
    assert await is_copy(storage, storage.url_of("videos/film/a.mp4"), source)


async def test_different_files_for_one_key_leave_one_of_them_whole(storage: Storage, tmp_path: Path) -> None:
    sources = [make_file(tmp_path / f"source-{n}", bytes([n]) * 3 * _MIB) for n in range(4)]
    await asyncio.gather(*(storage.put("a/b", source) for source in sources))
    assert await read_all(storage, storage.url_of("a/b")) in [source.read_bytes() for source in sources]
    assert files_in(tmp_path / "media") == ["a/b"]


async def test_putting_and_deleting_side_by_side_never_fails(storage: Storage, tmp_path: Path) -> None:
    source = make_file(tmp_path / "source")

    async def put_and_delete(name: str) -> None:
        for _ in range(50):
            stored = await storage.put(f"a/deep/folder/{name}", source)
            assert await storage.delete(stored.url)

    await asyncio.gather(*(put_and_delete(name) for name in "abcd"))
    assert files_in(tmp_path / "media") == []


def test_a_source_that_grows_meanwhile_is_not_stored(tmp_path: Path, source: Path) -> None:
    def grow(_: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    media = tmp_path / "media"
    with pytest.raises(Conflict, match=r"source.mp4 changed while it was copied"):
        FolderUpload(media, IncomingFolder(media / ".incoming"), "a/b", source, grow).run()
    assert not (media / "a").exists()


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, source: Path) -> None:
    script = """
import asyncio, resource, sys
from pathlib import Path
from app.core.errors import StorageFull
from tests.storage.stores import open_files

async def main(folder, source):
    storage = open_files(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))
    for put in (storage.put("a/b", source), receive(storage)):
        try:
            await put
        except StorageFull as error:
            print(error)
    await storage.aclose()

async def receive(storage):
    async with storage.receive_file() as incoming:
        for _ in range(10):
            await incoming.write(bytes(1 << 20))

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""
    command = [sys.executable, "-c", script, str(tmp_path), str(source)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "There is no room for the file: file too large\n" * 2
    assert files_in(tmp_path / "media") == []
