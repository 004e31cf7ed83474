"""Thumbnails of videos and clips: stored ones are opened, missing ones are made on demand."""

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
    require_found,
)
from app.core.thread_pool import ThreadPool
from app.database import Database
from app.media.probe import size_in_kb
from app.media.thumbnail import NoThumbnail, NoVideoStream, draw_waveform, make_thumbnail
from app.repositories import ThumbnailRepository
from app.repositories.thumbnails import ThumbnailOwner
from app.storage import OpenFile, Storage, StoredFile, storable_name, thumbnail_folder_key

_log = logging.getLogger(__name__)

# Decoding keeps a core busy, so a page of cards is decoded a few at a time.
_WORKERS = 2
# How long an undecodable file is not decoded again, and how many of them are remembered.
_FAILURE_SECONDS = 60.0
_MAX_FAILURES = 10_000
# How long no thumbnail is made after a storage failure: decoding is the expensive part.
_STORAGE_FAILURE_SECONDS = 5.0


class ThumbnailService:
    """Opens the thumbnails of videos and clips, and makes missing ones once for all concurrent requests."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage
        self._workers = ThreadPool("thumbnails", _WORKERS)
        self._tasks: dict[ThumbnailOwner, asyncio.Task[str]] = {}
        self._failures: TTLCache[ThumbnailOwner, None] = TTLCache(_MAX_FAILURES, _FAILURE_SECONDS)
        self._reported: LRUCache[ThumbnailOwner, None] = LRUCache(_MAX_FAILURES)
        # Storage errors by owner for reading videos, and under None for writing thumbnails.
        self._storage_failures: TTLCache[ThumbnailOwner | None, StorageFull | StorageUnavailable] = TTLCache(
            _MAX_FAILURES, _STORAGE_FAILURE_SECONDS
        )

    @asynccontextmanager
    async def open_or_make_video_thumbnail(self, video_identifier: str) -> AsyncIterator[OpenFile]:
        async with self._database.connect() as conn:
            owner = require_found(
                await ThumbnailRepository(conn).get_video_as_thumbnail_owner(video_identifier), VideoNotFound
            )
        async with AsyncExitStack() as stack:
            yield await self._open_or_make_thumbnail(stack, owner, f"{thumbnail_folder_key(video_identifier)}/")

    @asynccontextmanager
    async def open_or_make_clip_thumbnail(self, video: str, moment: str) -> AsyncIterator[OpenFile]:
        async with self._database.connect() as conn:
            found = require_found(
                await ThumbnailRepository(conn).get_clip_as_thumbnail_owner(video, moment), VideoNotFound
            )
        has_moment, owner = found
        if not has_moment:
            raise MomentNotFound
        if owner is None:
            raise ClipNotFound
        async with AsyncExitStack() as stack:
            yield await self._open_or_make_thumbnail(
                stack, owner, f"{thumbnail_folder_key(video)}/{storable_name(moment)}-"
            )

    async def aclose(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers.close()

    async def _open_or_make_thumbnail(self, stack: AsyncExitStack, owner: ThumbnailOwner, key_prefix: str) -> OpenFile:
        if owner.thumbnail_url is not None:
            with contextlib.suppress(FileMissing):  # a new one is made
                return await stack.enter_async_context(self._storage.open_async(owner.thumbnail_url))
        return await stack.enter_async_context(
            self._storage.open_async(await self._await_shared_thumbnail_url(owner, key_prefix))
        )

    async def _await_shared_thumbnail_url(self, owner: ThumbnailOwner, key_prefix: str) -> str:
        """Return the URL of the thumbnail that one task makes for all callers; cancelling a caller does not end it."""
        self._raise_recent_failure(owner)
        task = self._tasks.get(owner)
        if task is None:
            # Shared by requests, so the context of none.
            task = asyncio.create_task(self._make_and_store_missing_thumbnail(owner, key_prefix), context=Context())
            self._tasks[owner] = task
            task.add_done_callback(lambda done: self._forget_ended_thumbnail_task(owner, done))
        return await asyncio.shield(task)

    def _raise_recent_failure(self, owner: ThumbnailOwner) -> None:
        if owner in self._failures:
            raise ThumbnailNotFound
        if failure := self._storage_failures.get(None) or self._storage_failures.get(owner):
            raise type(failure)(str(failure))

    def _forget_ended_thumbnail_task(self, owner: ThumbnailOwner, task: asyncio.Task[str]) -> None:
        del self._tasks[owner]
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio logs it

    async def _make_and_store_missing_thumbnail(self, owner: ThumbnailOwner, key_prefix: str) -> str:
        async with self._database.connect() as conn:
            url = await ThumbnailRepository(conn).get_thumbnail_url(owner)
        if url is not None and url != owner.thumbnail_url:  # made in the meantime
            return url
        jpeg = await self._make_thumbnail_jpeg(owner)
        with self._remember_storage_failure(owner, None):
            file = await self._store_jpeg_file(jpeg, f"{key_prefix}{secrets.token_hex(12)}.jpg")
        return await self._insert_thumbnail_row(owner, file)

    async def _make_thumbnail_jpeg(self, owner: ThumbnailOwner) -> bytes:
        try:
            with self._remember_storage_failure(owner, owner):
                return await self._workers.run(self._make_jpeg_of_frame_or_waveform, owner.file_url)
        except (NoThumbnail, FileMissing, OSError) as error:
            self._failures[owner] = None
            self._log_failure_once(owner, error)
            raise ThumbnailNotFound from None

    def _log_failure_once(self, owner: ThumbnailOwner, error: Exception) -> None:
        if owner in self._reported:
            return
        self._reported[owner] = None
        # A missing file is reported by the run that downloads it, or by the importer.
        level = logging.DEBUG if isinstance(error, FileMissing) else logging.WARNING
        _log.log(level, "Cannot make a thumbnail of the %s %r: %s", owner.kind, owner.name, error)

    @contextmanager
    def _remember_storage_failure(self, owner: ThumbnailOwner, failure_key: ThumbnailOwner | None) -> Iterator[None]:
        """Log and raise a storage error of the block, and keep it under `failure_key` for five seconds."""
        try:
            yield
        except (StorageFull, StorageUnavailable) as error:
            # Without its traceback, which holds references.
            self._storage_failures[failure_key] = type(error)(str(error))
            _log.warning("Cannot make a thumbnail of the %s %r now: %s", owner.kind, owner.name, error)
            raise

    def _make_jpeg_of_frame_or_waveform(self, url: str) -> bytes:
        with self._storage.open_blocking(url) as file:
            try:
                return make_thumbnail(file)
            except NoVideoStream:
                file.seek(0)
                return draw_waveform(file)

    async def _store_jpeg_file(self, jpeg: bytes, key: str) -> StoredFile:
        async with self._storage.receive_file() as incoming:
            await incoming.write(jpeg)
            return await self._storage.put(key, incoming.path)

    async def _insert_thumbnail_row(self, owner: ThumbnailOwner, file: StoredFile) -> str:
        """Return the URL of the owner's thumbnail; delete `file` if another one was stored first."""
        url = None
        try:
            async with self._database.connect() as conn:
                url = await ThumbnailRepository(conn).replace_thumbnail(owner, file.url, size_in_kb(file.size))
        finally:
            if url != file.url:
                with contextlib.suppress(VideoMomentsError):  # the deletion of the video deletes it
                    await self._storage.delete(file.url)
        if url is None:
            raise ThumbnailNotFound
        return url
