"""Files that are still arriving, and what becomes of those that nobody finishes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.storage import Storage
from tests.storage.stores import files_in, make_file, open_files, read_all

_HOUR = 3600


async def test_what_has_arrived_is_moved_to_its_key(storage: Storage, tmp_path: Path) -> None:
    async with storage.receive_file() as incoming:
        await incoming.write(b"first ")
        await incoming.write(b"second")
        assert incoming.path.read_bytes() == b"first second"
        assert incoming.size == 12
        inode = incoming.path.stat().st_ino
        reports: list[int] = []
        stored = await storage.put("videos/film/a.mp4", incoming.path, reports.append)
    assert (tmp_path / "media/videos/film/a.mp4").stat().st_ino == inode
    assert await read_all(storage, stored.url) == b"first second"
    assert reports == [12]
    assert files_in(tmp_path / "media") == ["videos/film/a.mp4"]


async def test_what_has_arrived_replaces_what_was_there(storage: Storage, tmp_path: Path) -> None:
    await storage.put("a/b", make_file(tmp_path / "source", b"old"))
    async with storage.receive_file() as incoming:
        await incoming.write(b"new")
        stored = await storage.put("a/b", incoming.path)
    assert await read_all(storage, stored.url) == b"new"


async def test_what_is_not_put_is_removed(storage: Storage, tmp_path: Path) -> None:
    async with storage.receive_file() as incoming:
        await incoming.write(b"bytes")
        assert len(files_in(tmp_path / "media")) == 1
    assert files_in(tmp_path / "media") == []


async def test_what_fails_is_removed(storage: Storage, tmp_path: Path) -> None:
    async def fail() -> None:
        async with storage.receive_file() as incoming:
            await incoming.write(b"bytes")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert files_in(tmp_path / "media") == []


async def test_what_arrives_is_not_seen_before_it_is_whole(storage: Storage) -> None:
    async with storage.receive_file() as incoming:
        await incoming.write(b"bytes")
        assert not storage.owns(incoming.path.as_uri())
        with pytest.raises(Exception, match="File not found"):
            await storage.stat(incoming.path.as_uri())


async def test_an_abandoned_upload_is_swept(storage: Storage, tmp_path: Path) -> None:
    abandoned = _abandon_upload(tmp_path)
    _make_older(abandoned, _HOUR)
    await storage.put("a/b", make_file(tmp_path / "source"))
    assert not abandoned.exists()


async def test_an_upload_that_goes_on_is_kept_however_old(storage: Storage, tmp_path: Path) -> None:
    async with storage.receive_file() as incoming:
        await incoming.write(b"bytes")
        _make_older(incoming.path, 30 * 24 * _HOUR)
        other = open_files(tmp_path)
        await other.put("a/b", make_file(tmp_path / "source"))
        await other.aclose()
        assert incoming.path.read_bytes() == b"bytes"


async def test_a_draft_waits_a_week_for_its_copy_to_go_on(storage: Storage, tmp_path: Path) -> None:
    recent = make_file(tmp_path / "media/.incoming/draft-recent")
    old = make_file(tmp_path / "media/.incoming/draft-old")
    foreign = make_file(tmp_path / "media/.incoming/notes.txt")
    _make_older(recent, 6 * 24 * _HOUR)
    _make_older(old, 8 * 24 * _HOUR)
    _make_older(foreign, 8 * 24 * _HOUR)
    async with storage.receive_file():
        pass
    assert recent.exists()
    assert not old.exists()
    assert foreign.exists()


def _abandon_upload(folder: Path) -> Path:
    """Return the file of a process that was killed while it received."""
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.storage.stores import open_files

async def main():
    async with open_files(Path(sys.argv[1])).receive_file() as incoming:
        await incoming.write(b"bytes")
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False, cwd=Path(__file__).parents[2])
    (abandoned,) = (folder / "media/.incoming").iterdir()
    return abandoned


def _make_older(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)
