"""The still pictures of videos and of clips: found where they lie, and made when they are first asked for."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import Context

from cachetools import LRUCache, TTLCache

from app.core.errors import (
    ClipNotFound,
    FileMissing,
    MomentNotFound,
    StorageFull,
    StorageUnavailable,
    ThumbnailNotFound,
    VideoMomentsError,
    VideoNotFound,
)
from app.database import Database
from app.media.probe import size_in_kb
from app.media.thumbnail import NoThumbnail, NoVideoStream, draw_waveform, make_thumbnail
from app.repositories import ThumbnailRepository
from app.repositories.thumbnails import ThumbnailOwner
from app.services.identifiers import findable
from app.storage import OpenFile, Storage, StoredFile, name_of, thumbnail_folder
from app.storage.workers import Workers

_log = logging.getLogger(__name__)

# Decoding keeps a core busy; the rest of a list of cards waits its turn.
_WORKERS = 2
# How long a file that gives no picture is not decoded again, and how many such files are remembered.
_FAILURE_SECONDS = 60.0
_FAILURES_AT_MOST = 10_000
# How long a storage that cannot keep a picture, or does not give a film, is left alone. Decoding costs more than both.
_TROUBLE_SECONDS = 5.0


class Thumbnails:
    """The pictures of one application. Each is made once, however many ask for it at the same time."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage
        self._workers = Workers("stills", _WORKERS)
        self._makings: dict[ThumbnailOwner, asyncio.Task[str]] = {}
        self._failures: TTLCache[ThumbnailOwner, None] = TTLCache(_FAILURES_AT_MOST, _FAILURE_SECONDS)
        self._reported: LRUCache[ThumbnailOwner, None] = LRUCache(_FAILURES_AT_MOST)
        # What a storage raised for a film, and under None what ours raised for a picture.
        self._troubles: TTLCache[ThumbnailOwner | None, StorageFull | StorageUnavailable] = TTLCache(
            _FAILURES_AT_MOST, _TROUBLE_SECONDS
        )

    @asynccontextmanager
    async def open_video(self, identifier: str) -> AsyncIterator[OpenFile]:
        """Open the picture of a video; one that has none gets it now.

        Raises `VideoNotFound`, `ThumbnailNotFound`, `StorageUnavailable` and `StorageFull`.
        """
        async with self._database.connect() as conn:
            owner = await ThumbnailRepository(conn).find_video(findable(identifier))
        if owner is None:
            raise VideoNotFound
        async with AsyncExitStack() as stack:
            yield await self._open(stack, owner, f"{thumbnail_folder(identifier)}/")

    @asynccontextmanager
    async def open_clip(self, video: str, moment: str) -> AsyncIterator[OpenFile]:
        """Open the picture of the clip of a moment, as that of a video.

        Raises `MomentNotFound` and `ClipNotFound` too.
        """
        async with self._database.connect() as conn:
            found = await ThumbnailRepository(conn).find_clip(findable(video), findable(moment))
        if found is None:
            raise VideoNotFound
        has_moment, owner = found
        if not has_moment:
            raise MomentNotFound
        if owner is None:
            raise ClipNotFound
        async with AsyncExitStack() as stack:
            yield await self._open(stack, owner, f"{thumbnail_folder(video)}/{name_of(moment)}-")

    async def aclose(self) -> None:
        """Make no more pictures. What is being decoded ends by itself, soon."""
        makings = list(self._makings.values())
        for making in makings:
            making.cancel()
        await asyncio.gather(*makings, return_exceptions=True)
        self._workers.close()

    async def _open(self, stack: AsyncExitStack, owner: ThumbnailOwner, key: str) -> OpenFile:
        if owner.thumbnail_url is not None:
            with contextlib.suppress(FileMissing):  # another one is made in its place
                return await stack.enter_async_context(self._storage.opened(owner.thumbnail_url))
        return await stack.enter_async_context(self._storage.opened(await self._share(owner, key)))

    async def _share(self, owner: ThumbnailOwner, key: str) -> str:
        """Wait for the picture that is being made of an owner, or have it made; who goes away, leaves it to the others.

        Raises `ThumbnailNotFound`, `StorageUnavailable` and `StorageFull`.
        """
        self._check(owner)
        making = self._makings.get(owner)
        if making is None:
            making = asyncio.create_task(self._make(owner, key), context=Context())  # of all, so of no request
            self._makings[owner] = making
            making.add_done_callback(lambda done: self._forget(owner, done))
        return await asyncio.shield(making)

    def _check(self, owner: ThumbnailOwner) -> None:
        """Raise what was raised a short while ago."""
        if owner in self._failures:
            raise ThumbnailNotFound
        if trouble := self._troubles.get(None) or self._troubles.get(owner):
            raise type(trouble)(str(trouble))

    def _forget(self, owner: ThumbnailOwner, making: asyncio.Task[str]) -> None:
        del self._makings[owner]
        if not making.cancelled():
            making.exception()  # looked at, even where nobody waits any more

    async def _make(self, owner: ThumbnailOwner, key: str) -> str:
        async with self._database.connect() as conn:
            url = await ThumbnailRepository(conn).get_url(owner)
        if url is not None and url != owner.thumbnail_url:  # made since the owner was looked up
            return url
        jpeg = await self._take_still(owner)
        with self._noting_trouble(owner, None):
            file = await self._store(jpeg, f"{key}{secrets.token_hex(12)}.jpg")
        return await self._write_row(owner, file)

    async def _take_still(self, owner: ThumbnailOwner) -> bytes:
        try:
            with self._noting_trouble(owner, owner):
                return await self._workers.run(self._decode, owner.file_url)
        except (NoThumbnail, FileMissing, OSError) as error:
            self._failures[owner] = None
            self._report(owner, error)
            raise ThumbnailNotFound from None

    def _report(self, owner: ThumbnailOwner, error: Exception) -> None:
        """Log a failure when it is met first: the page that asks is opened again and again."""
        if owner in self._reported:
            return
        self._reported[owner] = None
        # A file that is not there is told by the run that was to bring it, or by the report of an import.
        level = logging.DEBUG if isinstance(error, FileMissing) else logging.WARNING
        _log.log(level, "No still picture of the %s %r can be made: %s", owner.kind, owner.name, error)

    @contextmanager
    def _noting_trouble(self, owner: ThumbnailOwner, key: ThumbnailOwner | None) -> Iterator[None]:
        try:
            yield
        except (StorageFull, StorageUnavailable) as error:
            self._troubles[key] = type(error)(str(error))  # without what its traceback holds
            _log.warning("A still picture of the %s %r cannot be made now: %s", owner.kind, owner.name, error)
            raise

    def _decode(self, url: str) -> bytes:
        with self._storage.open(url) as file:
            try:
                return make_thumbnail(file)
            except NoVideoStream:
                file.seek(0)
                return draw_waveform(file)

    async def _store(self, jpeg: bytes, key: str) -> StoredFile:
        async with self._storage.receive() as incoming:
            await incoming.write(jpeg)
            return await self._storage.put(key, incoming.path)

    async def _write_row(self, owner: ThumbnailOwner, file: StoredFile) -> str:
        """Return the URL of the owner's picture: this file, or another one that was there first; then this one goes."""
        url = None
        try:
            async with self._database.connect() as conn:
                url = await ThumbnailRepository(conn).put(owner, file.url, size_in_kb(file.size))
        finally:
            if url != file.url:
                with contextlib.suppress(VideoMomentsError):  # it is found again when the video is deleted
                    await self._storage.delete(file.url)
        if url is None:
            raise ThumbnailNotFound
        return url
