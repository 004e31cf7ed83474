"""Copies of a library's files in storage: a few at a time, each whole or not at all."""

import asyncio
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.core.errors import Conflict, FileMissing, StorageUnavailable
from app.importer.places import Finder, Places, StoredAddresses
from app.importer.preparing import LocalFile, PreparedVideo
from app.importer.report import Copied, Kind
from app.storage import Storage

_FILES_AT_ONCE = 2
_CHUNK_BYTES = 1024 * 1024


class Copier:
    """Brings the files of videos into storage before their rows name them there.

    `tell` gets the number of bytes that are done since it was called before, from any thread.
    """

    def __init__(self, storage: Storage, copied: Copied, tell: Callable[[int], None], dry_run: bool) -> None:
        self._storage = storage
        self._finder = Finder(storage)
        self._copied = copied
        self._tell = tell
        self._dry_run = dry_run
        self._slots = asyncio.Semaphore(_FILES_AT_ONCE)

    async def copy(self, prepared: PreparedVideo, stored: StoredAddresses) -> Places:
        """Copy the files of a video and return where they are; one that cannot be read is taken from the video.

        Raises `StorageFull` and `StorageUnavailable`.
        """
        places = await self._finder.find(prepared, stored, is_copying=True)
        sent = set()
        for file in prepared.files():
            if _has_another(prepared, places, stored, file):
                self._tell(file.size)
            elif self._dry_run:
                await self._rehearse(file)
            elif problem := await self._copy(file):
                prepared.notes.about(file.name).add(Kind.REFUSED, problem)
                prepared.lose(file)
            else:
                sent.add(places.url_of(file))
        return replace(places, sent=frozenset(sent))

    async def has_all(self, places: Places) -> bool:
        """Whether no copy went away in the meantime."""
        return None not in [await self._version(url) for url in places.sent]

    async def _copy(self, file: LocalFile) -> str | None:
        """Copy a file, or return why that cannot be done with this one."""
        told = 0

        def tell(count: int) -> None:
            nonlocal told
            told += count
            self._tell(count)

        async with self._slots:
            try:
                await self._put(file, tell)
            except Conflict as error:
                return str(error)
            except (FileMissing, StorageUnavailable) as error:
                if problem := await asyncio.to_thread(_read_through, file.path):
                    return problem
                raise StorageUnavailable(str(error)) from error
            finally:
                self._tell(file.size - told)
            return None

    async def _put(self, file: LocalFile, tell: Callable[[int], None]) -> None:
        before = await self._version(self._storage.url_of(file.key))
        stored = await self._storage.put(file.key, file.path, tell)
        self._copied.add(stored.size, is_new=stored.version != before)

    async def _rehearse(self, file: LocalFile) -> None:
        try:
            stored = await self._storage.stat(self._storage.url_of(file.key))
            self._copied.add(file.size, is_new=stored.size != file.size)
        except FileMissing:
            self._copied.add(file.size, is_new=True)
        self._tell(file.size)

    async def _version(self, url: str) -> str | None:
        try:
            return (await self._storage.stat(url)).version
        except FileMissing:
            return None


def _has_another(prepared: PreparedVideo, places: Places, stored: StoredAddresses, file: LocalFile) -> bool:
    """Whether the server itself has another film or picture of the video, which stays."""
    address = {id(prepared.film): stored.video, id(prepared.thumbnail): stored.thumbnail}.get(id(file))
    return address is not None and places.keeps(address, places.url_of(file))


def _read_through(path: Path) -> str | None:
    """Return why a file cannot be read to its end, or None."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "it is no regular file any more"
        with path.open("rb") as file:
            while file.read(_CHUNK_BYTES):
                pass
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None
