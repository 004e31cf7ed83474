"""Locations of a library's files: in the library, in storage, or copied to storage before."""

import asyncio
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from app.core.errors import ConfigurationError, Conflict, FileMissing, StorageUnavailable
from app.database import Connection
from app.importer.legacy_files import LegacyVideoFiles, Library, list_media_folders, read_json
from app.importer.legacy_records import VideoSource
from app.importer.moments import remote_clip_url
from app.importer.moments_file import parse_moments
from app.importer.prepared_videos import LibraryFile, PreparedVideo
from app.importer.report import CopyCount, EntryKind, ImportReport, ReportNotes
from app.repositories import ClipRepository, ThumbnailRepository, VideoRepository
from app.storage import Storage


@dataclass(frozen=True, slots=True)
class StoredUrls:
    """The URLs in a video's rows."""

    video: str | None = None
    thumbnail: str | None = None
    clips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileLocations:
    """The URLs that the rows of one video get.

    Of the server's own URLs in its rows, and of its audio, `existing_urls` have their file and `missing_urls` do not.
    `copy_urls` maps each URL in the library to that of its copy; the rows name the copies where `is_copying` is set.
    `new_copies` were just made, or found complete.
    """

    existing_urls: frozenset[str] = frozenset()
    missing_urls: frozenset[str] = frozenset()
    copy_urls: Mapping[str, str] = field(default_factory=dict)
    is_copying: bool = False
    new_copies: frozenset[str] = frozenset()

    def url_of(self, file: LibraryFile) -> str:
        return self.copy_urls[file.url] if self.is_copying else file.url

    def keeps_stored_url(self, stored: str, url: str) -> bool:
        """Return whether a row keeps its URL: a file that the server stored is never replaced."""
        return stored != url and stored in self.existing_urls

    def count_in_place(self, prepared: PreparedVideo) -> int:
        """Return how many files of a video are served from the library."""
        return (
            0
            if self.is_copying
            else sum(self.copy_urls[file.url] not in self.existing_urls for file in prepared.list_files())
        )

    def rank_url(self, url: str) -> int:
        """Return how good a URL is; the highest is best."""
        if url in self.existing_urls or (self.is_copying and url in self.copy_urls.values()):
            return 3
        return 0 if url in self.missing_urls else {"file": 2, "gs": 1}.get(url.partition(":")[0], 0)


async def read_stored_urls(conn: Connection, identifier: str) -> StoredUrls:
    """Return the URLs in the rows of a video; none for a new video."""
    video = await VideoRepository(conn).get_by_identifier(identifier)
    if video is None:
        return StoredUrls()
    thumbnail = await ThumbnailRepository(conn).get_by_video(video.id)
    clips = await ClipRepository(conn).list_by_video(video.id)
    return StoredUrls(
        video.cloud_url, thumbnail.cloud_url if thumbnail else None, tuple(clip.cloud_url for clip in clips)
    )


class LocationFinder:
    """Finds the files that are stored already; after one failure the storage is not asked again."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._is_away = False

    async def find_locations(self, prepared: PreparedVideo, stored: StoredUrls, is_copying: bool) -> FileLocations:
        copy_urls = {file.url: self._storage.url_of(file.key) for file in prepared.list_files()}
        audio_url = copy_urls[prepared.audio.url] if prepared.audio else None
        urls = (stored.video, stored.thumbnail, audio_url, *stored.clips)
        own = {url for url in urls if url is not None and self._storage.owns(url)}
        are_there = await asyncio.gather(*map(self._file_exists, own))
        existing_urls = frozenset(url for url, is_there in zip(own, are_there, strict=True) if is_there)
        return FileLocations(existing_urls, frozenset(own - existing_urls), copy_urls, is_copying)

    async def _file_exists(self, url: str) -> bool:
        """Return whether a file exists, or True where the storage does not answer: its row stays."""
        try:
            if not self._is_away:
                await self._storage.stat(url)
        except FileMissing:
            return False
        except StorageUnavailable:
            self._is_away = True
        return True


_FILES_AT_ONCE = 2
_READ_CHUNK_BYTES = 1024 * 1024


class FileCopier:
    """Brings the files of videos into storage before their rows name them there.

    `report_bytes` gets the number of bytes that are done since it was called before, from any thread.
    """

    def __init__(self, storage: Storage, copied: CopyCount, report_bytes: Callable[[int], None], dry_run: bool) -> None:
        self._storage = storage
        self._finder = LocationFinder(storage)
        self._copied = copied
        self._report_bytes = report_bytes
        self._dry_run = dry_run
        self._slots = asyncio.Semaphore(_FILES_AT_ONCE)

    async def copy_files(self, prepared: PreparedVideo, stored: StoredUrls) -> FileLocations:
        """Copy the files of a video and return their locations; an unreadable file is dropped.

        Raises `StorageFull` and `StorageUnavailable`.
        """
        locations = await self._finder.find_locations(prepared, stored, is_copying=True)
        new_copies = set()
        for file in prepared.list_files():
            if _has_other_file(prepared, locations, stored, file):
                self._report_bytes(file.size)
            elif self._dry_run:
                await self._count_without_copying(file)
            elif problem := await self._copy_file(file):
                prepared.notes.about(file.name).add(EntryKind.REFUSED, problem)
                prepared.drop_file(file)
            else:
                new_copies.add(locations.url_of(file))
        return replace(locations, new_copies=frozenset(new_copies))

    async def has_all_copies(self, locations: FileLocations) -> bool:
        return None not in [await self._stored_version(url) for url in locations.new_copies]

    async def _copy_file(self, file: LibraryFile) -> str | None:
        """Copy a file, or return why it cannot be copied."""
        reported = 0

        def report_bytes(count: int) -> None:
            nonlocal reported
            reported += count
            self._report_bytes(count)

        async with self._slots:
            try:
                await self._store_file(file, report_bytes)
            except Conflict as error:
                return str(error)
            except (FileMissing, StorageUnavailable) as error:
                if problem := await asyncio.to_thread(_describe_read_problem, file.path):
                    return problem
                raise StorageUnavailable(str(error)) from error
            finally:
                self._report_bytes(file.size - reported)
            return None

    async def _store_file(self, file: LibraryFile, report_bytes: Callable[[int], None]) -> None:
        before = await self._stored_version(self._storage.url_of(file.key))
        stored = await self._storage.put(file.key, file.path, report_bytes)
        self._copied.add(stored.size, is_new=stored.version != before)

    async def _count_without_copying(self, file: LibraryFile) -> None:
        try:
            stored = await self._storage.stat(self._storage.url_of(file.key))
            self._copied.add(file.size, is_new=stored.size != file.size)
        except FileMissing:
            self._copied.add(file.size, is_new=True)
        self._report_bytes(file.size)

    async def _stored_version(self, url: str) -> str | None:
        try:
            return (await self._storage.stat(url)).version
        except FileMissing:
            return None


def _has_other_file(prepared: PreparedVideo, locations: FileLocations, stored: StoredUrls, file: LibraryFile) -> bool:
    """Return whether the server has another video file or thumbnail of its own, which stays."""
    address = {id(prepared.video_file): stored.video, id(prepared.thumbnail): stored.thumbnail}.get(id(file))
    return address is not None and locations.keeps_stored_url(address, locations.url_of(file))


def _describe_read_problem(path: Path) -> str | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "it is no regular file any more"
        with path.open("rb") as file:
            while file.read(_READ_CHUNK_BYTES):
                pass
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def check_storage_folder(storage: Storage, root: Path) -> None:
    """Raise `ConfigurationError` for a local store inside the library, whose files a deletion would take.

    It blocks.
    """
    for folder in list_media_folders(root):
        if storage.is_inside(folder):
            raise ConfigurationError(
                f"STORAGE_URL must not lie in the library {folder}, whose files are yours: move it"
            )


def check_bucket_urls(
    storage: Storage, library: Library, sources: Mapping[str, VideoSource], bucket: str | None
) -> None:
    """Raise `ConfigurationError` for a bucket store that contains files of the library. It blocks."""
    if not storage.url_of("clips").startswith("gs://"):
        return
    addresses = (source.url for source in sources.values())
    for url in chain(addresses, *(_clip_urls(files.moments, bucket) for files in library.videos)):
        if storage.owns(url):
            raise ConfigurationError(
                f"STORAGE_URL must name a folder of the server's own: {url} is yours, and a deletion would take it"
            )


def _clip_urls(moments: Path | None, bucket: str | None) -> Iterator[str]:
    """Yield the clip URLs of a moments file; errors are reported when the video is read."""
    with suppress(Exception):
        rows = parse_moments(read_json(moments), ReportNotes(None, None)).moments if moments else []
        yield from (url for row in rows if (url := remote_clip_url(row, bucket)))


def register_library_folders(
    storage: Storage, library: Library, sources: Mapping[str, VideoSource], is_copying: bool, report: ImportReport
) -> None:
    """Register the library's folders for serving, where rows will name files in them. It blocks."""
    is_served = not is_copying and library.has_media()
    if not is_served and not any(_is_missing(files, sources) for files in library.videos):
        return
    report.folders = list_media_folders(library.root)
    if report.dry_run:
        return
    try:
        for folder in report.folders:
            storage.libraries.add_folder(folder)
    except StorageUnavailable as error:
        if any(storage.owns((folder / "videos").as_uri()) for folder in report.folders):
            raise  # else the server would take the files for its own
        report.note_problem = str(error)


def _is_missing(files: LegacyVideoFiles, sources: Mapping[str, VideoSource]) -> bool:
    """Return whether the video's row will name a file that the library does not have."""
    source = sources.get(files.identifier)
    return files.video is None and not (source and source.url.startswith("gs://"))
