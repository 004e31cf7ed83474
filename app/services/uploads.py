"""Uploads: a video is received, probed and stored, and only then gets its row."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from itertools import chain, count
from pathlib import Path

from psycopg.errors import UniqueViolation

from app.core.errors import (
    Conflict,
    DeletedMeanwhile,
    FileMissing,
    InvalidInput,
    StageFailed,
    StorageUnavailable,
    TooLarge,
)
from app.core.thread_pool import ThreadPool
from app.database import Database
from app.media.container import DEFAULT_MAX_HOURS, check_max_hours
from app.media.probe import MediaInfo, NotAVideo, probe_media
from app.repositories import VideoRepository
from app.repositories.media import VideoFileRepository
from app.services.media import limit_storage_wait
from app.services.videos import VideoDetails, random_identifier
from app.storage import IncomingFile, Storage, path_from_url, video_folder_key

# Identifiers of this process's unfinished uploads. Between processes the unique constraint decides.
_reserved_identifiers: set[str] = set()
_log = logging.getLogger(__name__)
# Probing takes seconds, so it has threads of its own.
_probe_pool = ThreadPool("probes", 2)
_FREE_SPACE_STEP = 64 * 1024**2  # bytes between two checks of the disk
_IDENTIFIER_TAKEN = "A video with this id exists already"


@asynccontextmanager
async def reserve_identifier(database: Database, base: str) -> AsyncIterator[str]:
    """Yield `base`, or `base-2`, `base-3`, … if it is taken, and reserve it until the block ends."""
    async with database.connect() as conn:
        taken = await VideoRepository(conn).list_taken_identifiers(base)
    name = _choose_free_identifier(base, taken)
    _reserved_identifiers.add(name)  # no await since it was chosen
    try:
        yield name
    finally:
        _reserved_identifiers.discard(name)


def _choose_free_identifier(base: str, taken: Set[str]) -> str:
    names = chain([base], (f"{base}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken and name not in _reserved_identifiers)


class _IdentifierTaken(Exception):
    """Another video took the identifier while this one was stored at `url`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class Upload:
    """A video being received: check its details, write its bytes, store it. Leaving the block discards the rest."""

    def __init__(
        self, database: Database, storage: Storage, incoming: IncomingFile, max_bytes: int, max_hours: float
    ) -> None:
        self._database = database
        self._storage = storage
        self._incoming = incoming
        self._max_bytes = max_bytes
        self._max_hours = max_hours

    async def check_details(self, details: VideoDetails, at_least_bytes: int = 0) -> None:
        """Reject early what cannot succeed.

        Raises `TooLarge`, `StorageFull`, `InvalidInput`, and `Conflict` if the client's identifier is taken.
        """
        if at_least_bytes > self._max_bytes:
            raise self._size_error()
        details.check()
        if at_least_bytes > 0:
            await self._incoming.check_free_space(at_least_bytes)
        if details.identifier:
            async with self._database.connect() as conn:
                if await VideoRepository(conn).get_by_identifier(details.identifier):
                    raise Conflict(_IDENTIFIER_TAKEN)

    async def write(self, data: bytes) -> None:
        size = self._incoming.size + len(data)
        if size > self._max_bytes:
            raise self._size_error()
        if size // _FREE_SPACE_STEP > self._incoming.size // _FREE_SPACE_STEP:
            await self._incoming.check_free_space(_FREE_SPACE_STEP)
        await self._incoming.write(data)

    async def store(self, details: VideoDetails) -> str:
        """Create a video from the received bytes and return its identifier.

        An identifier that `details` does not give is derived from the file name, with a suffix if that is taken.
        Raises `InvalidInput` for a file that is not a video, `Conflict` for a taken identifier, `StorageUnavailable`
        and `StorageFull`.
        """
        await self.check_details(details)
        info = await self._probe_file()
        if details.identifier:
            try:
                return await self._store_as(details.identifier, self._incoming.path, details, info)
            except _IdentifierTaken as taken:
                await self._discard_file(details.identifier, taken.url)
                raise Conflict(_IDENTIFIER_TAKEN) from None
        if base := details.derived_identifier:
            return await self._store_under_free_name(base, details, info)
        return await self._store_as(random_identifier(), self._incoming.path, details, info)

    async def _store_under_free_name(self, base: str, details: VideoDetails, info: MediaInfo) -> str:
        async with reserve_identifier(self._database, base) as name:
            try:
                return await self._store_as(name, self._incoming.path, details, info)
            except _IdentifierTaken as taken:  # by another process
                url = taken.url
        try:
            source = await asyncio.to_thread(self._locate_file, url)
            return await self._store_as(f"{base}-{secrets.token_hex(4)}", source, details, info)
        finally:
            await self._discard_file(name, url)

    def _locate_file(self, url: str) -> Path:
        # A local store has moved the received file.
        return self._incoming.path if self._incoming.path.exists() else path_from_url(url)

    async def _store_as(self, identifier: str, source: Path, details: VideoDetails, info: MediaInfo) -> str:
        """Raises `_IdentifierTaken`; the stored file remains then."""
        # File names are unique, so that deleting one upload never deletes the file of another.
        key = f"{video_folder_key(identifier)}/{secrets.token_hex(8)}{details.extension or info.extension}"
        url = self._storage.url_of(key)
        # If the process is killed before the row exists, only this line names the file of a random identifier;
        # files of other identifiers are deleted with the next video of that name.
        _log.info("Storing the upload of %r as %s", identifier, url)
        try:
            await self._storage.put(key, source)
            await self._add_video_row(identifier, url, details, info)
        except FileMissing:
            raise DeletedMeanwhile from None
        except UniqueViolation:
            raise _IdentifierTaken(url) from None
        except BaseException:
            await self._discard_file(identifier, url)
            raise
        return identifier

    async def _probe_file(self) -> MediaInfo:
        try:
            info = await _probe_pool.run(probe_media, self._incoming.path)
            check_max_hours(info.duration_seconds or 0.0, self._max_hours)
            return info
        except StageFailed as error:
            raise InvalidInput(str(error)) from None
        except NotAVideo as error:
            raise InvalidInput(f"{str(error)[:1].upper()}{str(error)[1:]}") from None
        except OSError as error:
            _log.warning("Cannot read an upload: %s", error)
            raise StorageUnavailable("What has arrived cannot be read") from None

    async def _add_video_row(self, identifier: str, url: str, details: VideoDetails, info: MediaInfo) -> None:
        async with self._database.connect() as conn, conn.transaction():
            videos = VideoRepository(conn)
            await videos.lock_identifier(identifier)
            video = await videos.create(
                identifier=identifier,
                cloud_url=url,
                title=details.stored_title,
                source_url=details.source_url or None,
                duration_seconds=info.duration_seconds,
                file_size_kb=info.file_size_kb,
                video_codec=info.video_codec,
                audio_codec=info.audio_codec,
                resolution=info.resolution,
                frame_rate=info.frame_rate,
            )
            if info.ends_early:
                await VideoFileRepository(conn).store_early_end(video.id, url, info.declared_seconds)
            # A deletion that held the lock before may have deleted the file as a leftover. Checked under the lock, so
            # that the row is never committed without its file.
            async with limit_storage_wait():
                await self._storage.stat(url)

    async def _discard_file(self, identifier: str, url: str) -> None:
        """Delete the file unless a row refers to it: a commit may have succeeded without an answer."""
        try:
            async with self._database.connect() as conn:
                if await VideoRepository(conn).is_file_referenced(identifier, url):
                    return
            await self._storage.delete(url)
        except Exception as error:  # the next deletion of this identifier deletes the file
            _log.warning("Could not delete the file of a failed upload of %r: %s", identifier, error)

    def _size_error(self) -> TooLarge:
        return TooLarge(f"A video may have at most {self._max_bytes} bytes")


@asynccontextmanager
async def receive_video(
    database: Database, storage: Storage, max_bytes: int, max_hours: float = DEFAULT_MAX_HOURS
) -> AsyncIterator[Upload]:
    """Yield an `Upload`; its temporary file is deleted when the block ends."""
    async with storage.receive_file() as incoming:
        yield Upload(database, storage, incoming, max_bytes, max_hours)
