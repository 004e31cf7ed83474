"""Uploads: a video is received, probed and stored, and only then gets its row."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Self

from psycopg.errors import UniqueViolation

from app.core.errors import (
    Conflict,
    FileMissing,
    InvalidInput,
    SizeLimitExceeded,
    StageFailed,
    StorageUnavailable,
    VideoDeletedMeanwhile,
)
from app.core.media_types import MEDIA_EXTENSIONS
from app.core.text import clean_line, find_control_character, to_nfc
from app.core.thread_pool import ThreadPool
from app.database import Database
from app.media.container import DEFAULT_MAX_HOURS, check_max_hours
from app.media.probe import MediaInfo, NotMedia, probe_media
from app.models.videos import make_title_from_file_name
from app.repositories import VideoRepository
from app.repositories.media import PlayableCopyRepository
from app.services.media import limit_storage_time
from app.services.videos import (
    LONGEST_TITLE,
    check_source_url,
    check_text_field,
    check_video_identifier,
    check_video_title,
    slugify_filename,
)
from app.storage import IncomingFile, Storage, path_from_url, video_folder_key

# Identifiers of this process's unfinished uploads. Between processes the unique constraint decides.
_reserved_identifiers: set[str] = set()
_log = logging.getLogger(__name__)
# Probing takes seconds, so it has threads of its own.
_probe_pool = ThreadPool("probes", 2)
_LONGEST_FILENAME = 1024
_FREE_SPACE_STEP = 64 * 1024**2  # bytes between two checks of the disk
_IDENTIFIER_TAKEN = "A video with this id exists already"


@dataclass(frozen=True, slots=True)
class UploadDetails:
    """File name, identifier, title and source URL that a client gives with an upload, normalized; '' if not given."""

    filename: str = ""
    identifier: str = ""
    title: str = ""
    source_url: str = ""

    @classmethod
    def from_client(cls, filename: str, identifier: str, title: str, source_url: str) -> Self:
        for name, text in (("The file's name", filename), ("title", title)):
            if found := find_control_character(text):
                raise InvalidInput(f"{name} must not hold the character {found}")
        return cls(filename, identifier, title, source_url)

    def __post_init__(self) -> None:
        object.__setattr__(self, "filename", clean_line(self.filename))
        object.__setattr__(self, "identifier", to_nfc(self.identifier))
        object.__setattr__(self, "title", clean_line(self.title) or self.title)

    def raise_if_invalid(self) -> None:
        check_text_field("The file's name", self.filename, _LONGEST_FILENAME)
        if self.identifier:
            check_video_identifier(self.identifier)
        if self.title:
            check_video_title(self.title)
        if self.source_url:
            check_source_url(self.source_url)

    @property
    def identifier_from_filename(self) -> str:
        return slugify_filename(self._split_into_stem_and_extension()[0])

    @property
    def title_or_filename(self) -> str | None:
        return (self.title or make_title_from_file_name(self._split_into_stem_and_extension()[0]))[
            :LONGEST_TITLE
        ] or None

    @property
    def media_extension_or_empty(self) -> str:
        extension = self._split_into_stem_and_extension()[1]
        return extension if extension in MEDIA_EXTENSIONS else ""

    def _split_into_stem_and_extension(self) -> tuple[str, str]:
        name = self.filename.replace("\\", "/").rpartition("/")[2]
        stem, dot, extension = name.rpartition(".")
        return (stem, f".{extension.lower()}") if dot else (name, "")


@asynccontextmanager
async def reserve_free_identifier(database: Database, base: str) -> AsyncIterator[str]:
    """Yield the video identifier `base`, or `base-2`, `base-3`, … if it is taken; reserved until the block ends."""
    async with database.connect() as conn:
        taken = await VideoRepository(conn).list_taken_identifiers(base)
    candidates = chain([base], (f"{base}-{number}" for number in count(2)))
    identifier = next(each for each in candidates if each not in taken and each not in _reserved_identifiers)
    _reserved_identifiers.add(identifier)  # no await since it was chosen
    try:
        yield identifier
    finally:
        _reserved_identifiers.discard(identifier)


class _IdentifierTaken(Exception):
    """Another video took the identifier while this one was stored at `url`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class VideoUpload:
    """A video file that a client is sending: check its details, write its bytes in chunks, then store it as a video."""

    def __init__(
        self, database: Database, storage: Storage, incoming: IncomingFile, max_bytes: int, max_hours: float
    ) -> None:
        self._database = database
        self._storage = storage
        self._incoming = incoming
        self._max_bytes = max_bytes
        self._max_hours = max_hours

    async def check_upload_details(self, details: UploadDetails, min_file_bytes: int = 0) -> None:
        if min_file_bytes > self._max_bytes:
            raise self._make_size_error()
        details.raise_if_invalid()
        if min_file_bytes > 0:
            await self._incoming.check_free_space(min_file_bytes)
        if details.identifier:
            async with self._database.connect() as conn:
                if await VideoRepository(conn).get_by_identifier(details.identifier):
                    raise Conflict(_IDENTIFIER_TAKEN)

    async def write_chunk(self, data: bytes) -> None:
        size = self._incoming.size + len(data)
        if size > self._max_bytes:
            raise self._make_size_error()
        if size // _FREE_SPACE_STEP > self._incoming.size // _FREE_SPACE_STEP:
            await self._incoming.check_free_space(_FREE_SPACE_STEP)
        await self._incoming.write(data)

    async def store_as_video(self, details: UploadDetails) -> str:
        """Create a video from the received bytes and return its identifier, by default derived from the file name."""
        await self.check_upload_details(details)
        info = await self._probe_received_file()
        if details.identifier:
            try:
                return await self._store_video_under_identifier(details.identifier, self._incoming.path, details, info)
            except _IdentifierTaken as taken:
                await self._delete_unreferenced_file(details.identifier, taken.url)
                raise Conflict(_IDENTIFIER_TAKEN) from None
        if base := details.identifier_from_filename:
            return await self._store_video_under_free_identifier(base, details, info)
        return await self._store_video_under_identifier(
            f"video-{secrets.token_hex(4)}", self._incoming.path, details, info
        )

    async def _store_video_under_free_identifier(
        self, base_identifier: str, details: UploadDetails, info: MediaInfo
    ) -> str:
        async with reserve_free_identifier(self._database, base_identifier) as identifier:
            try:
                return await self._store_video_under_identifier(identifier, self._incoming.path, details, info)
            except _IdentifierTaken as taken:  # by another process
                url = taken.url
        try:
            # A local store has moved the received file.
            is_moved = not await asyncio.to_thread(self._incoming.path.exists)
            source = path_from_url(url) if is_moved else self._incoming.path
            return await self._store_video_under_identifier(
                f"{base_identifier}-{secrets.token_hex(4)}", source, details, info
            )
        finally:
            await self._delete_unreferenced_file(identifier, url)

    async def _store_video_under_identifier(
        self, identifier: str, source: Path, details: UploadDetails, info: MediaInfo
    ) -> str:
        """Store the file and insert the row. Raises `_IdentifierTaken`, and leaves the stored file then."""
        # File names are unique, so that deleting one upload never deletes the file of another.
        key = (
            f"{video_folder_key(identifier)}/{secrets.token_hex(8)}{details.media_extension_or_empty or info.extension}"
        )
        url = self._storage.url_of(key)
        # If the process is killed before the row exists, only this line names the file of a random identifier;
        # files of other identifiers are deleted with the next video of that name.
        _log.info("Storing the upload of %r as %s", identifier, url)
        try:
            await self._storage.put(key, source)
            await self._insert_row_of_stored_video(identifier, url, details, info)
        except FileMissing:
            raise VideoDeletedMeanwhile from None
        except UniqueViolation:
            raise _IdentifierTaken(url) from None
        except BaseException:
            await self._delete_unreferenced_file(identifier, url)
            raise
        return identifier

    async def _probe_received_file(self) -> MediaInfo:
        try:
            info = await _probe_pool.run(probe_media, self._incoming.path)
            check_max_hours(info.duration_seconds or 0.0, self._max_hours)
            return info
        except StageFailed as error:
            raise InvalidInput(str(error)) from None
        except NotMedia as error:
            raise InvalidInput(f"{str(error)[:1].upper()}{str(error)[1:]}") from None
        except OSError as error:
            _log.warning("Cannot read an upload: %s", error)
            raise StorageUnavailable("What has arrived cannot be read") from None

    async def _insert_row_of_stored_video(
        self, identifier: str, url: str, details: UploadDetails, info: MediaInfo
    ) -> None:
        async with self._database.connect() as conn, conn.transaction():
            videos = VideoRepository(conn)
            await videos.lock_video_identifier(identifier)
            video = await videos.create(
                identifier=identifier,
                cloud_url=url,
                title=details.title_or_filename,
                source_url=details.source_url or None,
                duration_seconds=info.duration_seconds,
                file_size_kb=info.file_size_kb,
                video_codec=info.video_codec,
                audio_codec=info.audio_codec,
                resolution=info.resolution,
                frame_rate=info.frame_rate,
            )
            if info.ends_early:
                await PlayableCopyRepository(conn).store_early_end(video.id, url, info.declared_seconds)
            # A deletion that held the lock before may have deleted the file as a leftover. Checked under the lock, so
            # that the row is never committed without its file.
            async with limit_storage_time():
                await self._storage.stat(url)

    async def _delete_unreferenced_file(self, identifier: str, url: str) -> None:
        try:
            async with self._database.connect() as conn:
                if await VideoRepository(conn).is_file_referenced(identifier, url):
                    return
            await self._storage.delete(url)
        except Exception as error:  # the next deletion of this identifier deletes the file
            _log.warning("Could not delete the file of a failed upload of %r: %s", identifier, error)

    def _make_size_error(self) -> SizeLimitExceeded:
        return SizeLimitExceeded(f"A video may have at most {self._max_bytes} bytes")


@asynccontextmanager
async def open_video_upload(
    database: Database, storage: Storage, max_bytes: int, max_hours: float = DEFAULT_MAX_HOURS
) -> AsyncIterator[VideoUpload]:
    async with storage.receive_file() as incoming:
        yield VideoUpload(database, storage, incoming, max_bytes, max_hours)
