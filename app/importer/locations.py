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
from app.importer.legacy_files import LegacyVideoFiles, LibraryContents, list_media_folders, read_json_file
from app.importer.legacy_records import RegisteredSource
from app.importer.moments import find_remote_clip_url
from app.importer.moments_file import parse_moments
from app.importer.prepared_videos import LibraryFile, PreparedVideo
from app.importer.report import CopyCounts, EntryKind, FileReporter, ImportReport
from app.repositories import ClipRepository, ThumbnailRepository, VideoRepository
from app.storage import Storage


@dataclass(frozen=True, slots=True)
class RowUrls:
    """The URLs in the rows of one video before the import; None and () without rows."""

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
        """Return the URL for a file's row: that of its copy where files are copied, else that in the library."""
        return self.copy_urls[file.url] if self.is_copying else file.url

    def keeps_stored_url(self, stored_url: str, new_url: str) -> bool:
        """Return whether a row keeps its URL: a file that the server stored is never replaced."""
        return stored_url != new_url and stored_url in self.existing_urls

    def count_files_served_from_library(self, prepared: PreparedVideo) -> int:
        if self.is_copying:
            return 0
        return sum(self.copy_urls[file.url] not in self.existing_urls for file in prepared.list_files())

    def rank_url(self, url: str) -> int:
        """Return how good a URL is: 3 a stored file, 2 a local file, 1 in a bucket, 0 any other or a missing file."""
        if url in self.existing_urls or (self.is_copying and url in self.copy_urls.values()):
            return 3
        return 0 if url in self.missing_urls else {"file": 2, "gs": 1}.get(url.partition(":")[0], 0)


async def read_row_urls(conn: Connection, identifier: str) -> RowUrls:
    video = await VideoRepository(conn).get_by_identifier(identifier)
    if video is None:
        return RowUrls()
    thumbnail = await ThumbnailRepository(conn).get_by_video(video.id)
    clips = await ClipRepository(conn).list_by_video(video.id)
    clip_urls = tuple(clip.cloud_url for clip in clips)
    return RowUrls(video.cloud_url, thumbnail.cloud_url if thumbnail else None, clip_urls)


class StoredFileFinder:
    """Asks the storage which files exist; after one failure it is not asked again."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._is_unavailable = False

    async def locate_files(self, prepared: PreparedVideo, row_urls: RowUrls, is_copying: bool) -> FileLocations:
        """Check which files named by a video's rows exist, and map its library files to the URLs of copies."""
        copy_urls = {file.url: self._storage.url_of(file.key) for file in prepared.list_files()}
        audio_url = copy_urls[prepared.audio.url] if prepared.audio else None
        urls = (row_urls.video, row_urls.thumbnail, audio_url, *row_urls.clips)
        own = {url for url in urls if url is not None and self._storage.owns(url)}
        exist = await asyncio.gather(*map(self._exists_or_unknown, own))
        existing_urls = frozenset(url for url, exists in zip(own, exist, strict=True) if exists)
        return FileLocations(existing_urls, frozenset(own - existing_urls), copy_urls, is_copying)

    async def _exists_or_unknown(self, url: str) -> bool:
        try:
            if not self._is_unavailable:
                await self._storage.stat(url)
        except FileMissing:
            return False
        except StorageUnavailable:
            self._is_unavailable = True
        return True


_FILES_AT_ONCE = 2
_READ_CHUNK_BYTES = 1024 * 1024


class LibraryFileCopier:
    """Copies the files of a library into storage; `report_bytes` gets the bytes copied since its last call."""

    def __init__(
        self, storage: Storage, copied: CopyCounts, report_bytes: Callable[[int], None], dry_run: bool
    ) -> None:
        self._storage = storage
        self._finder = StoredFileFinder(storage)
        self._copied = copied
        self._report_bytes = report_bytes
        self._dry_run = dry_run
        self._slots = asyncio.Semaphore(_FILES_AT_ONCE)

    async def copy_files(self, prepared: PreparedVideo, row_urls: RowUrls) -> FileLocations:
        """Copy the files of a video and return their locations; an unreadable file is removed from `prepared`.

        Raises `StorageFull` and `StorageUnavailable`.
        """
        locations = await self._finder.locate_files(prepared, row_urls, is_copying=True)
        new_copies = set()
        for file in prepared.list_files():
            if _keeps_stored_file(prepared, locations, row_urls, file):
                self._report_bytes(file.size)
            elif self._dry_run:
                await self._count_without_copying(file)
            elif problem := await self._copy_file_or_explain_failure(file):
                prepared.reporter.for_file(file.path).add_entry(EntryKind.REFUSED, problem)
                prepared.remove_file(file)
            else:
                new_copies.add(locations.url_of(file))
        return replace(locations, new_copies=frozenset(new_copies))

    async def has_all_copies(self, locations: FileLocations) -> bool:
        return None not in [await self._find_stored_version(url) for url in locations.new_copies]

    async def _copy_file_or_explain_failure(self, file: LibraryFile) -> str | None:
        reported = 0

        def report_bytes(count: int) -> None:
            nonlocal reported
            reported += count
            self._report_bytes(count)

        async with self._slots:
            try:
                before = await self._find_stored_version(self._storage.url_of(file.key))
                stored = await self._storage.put(file.key, file.path, report_bytes)
                self._copied.add_file(stored.size, is_new=stored.version != before)
            except Conflict as error:
                return str(error)
            except (FileMissing, StorageUnavailable) as error:
                if problem := await asyncio.to_thread(_explain_read_failure, file.path):
                    return problem
                raise StorageUnavailable(str(error)) from error
            finally:
                self._report_bytes(file.size - reported)
            return None

    async def _count_without_copying(self, file: LibraryFile) -> None:
        try:
            stored = await self._storage.stat(self._storage.url_of(file.key))
            self._copied.add_file(file.size, is_new=stored.size != file.size)
        except FileMissing:
            self._copied.add_file(file.size, is_new=True)
        self._report_bytes(file.size)

    async def _find_stored_version(self, url: str) -> str | None:
        try:
            return (await self._storage.stat(url)).version
        except FileMissing:
            return None


def _keeps_stored_file(prepared: PreparedVideo, locations: FileLocations, row_urls: RowUrls, file: LibraryFile) -> bool:
    """Return whether the file is not copied, because the server has another video file or thumbnail of its own."""
    url = {id(prepared.video_file): row_urls.video, id(prepared.thumbnail): row_urls.thumbnail}.get(id(file))
    return url is not None and locations.keeps_stored_url(url, locations.url_of(file))


def _explain_read_failure(path: Path) -> str | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "it is no regular file any more"
        with path.open("rb") as file:
            while file.read(_READ_CHUNK_BYTES):
                pass
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def refuse_storage_in_library(storage: Storage, root: Path) -> None:
    """Raise `ConfigurationError` where the local store is inside the library: a deletion would take its files.

    It blocks.
    """
    for folder in list_media_folders(root):
        if storage.is_inside(folder):
            raise ConfigurationError(
                f"STORAGE_URL must not lie in the library {folder}, whose files are yours: move it"
            )


def refuse_bucket_with_library_urls(
    storage: Storage, library: LibraryContents, sources: Mapping[str, RegisteredSource], bucket: str | None
) -> None:
    """Raise `ConfigurationError` where videos or clips of the library are in the server's own bucket. It blocks."""
    if not storage.url_of("clips").startswith("gs://"):
        return
    urls = (source.url for source in sources.values())
    for url in chain(urls, *(_list_remote_clip_urls(files.moments, bucket) for files in library.videos)):
        if storage.owns(url):
            raise ConfigurationError(
                f"STORAGE_URL must name a folder of the server's own: {url} is yours, and a deletion would take it"
            )


def _list_remote_clip_urls(moments_file: Path | None, bucket: str | None) -> Iterator[str]:
    with suppress(Exception):
        rows = parse_moments(read_json_file(moments_file), FileReporter(None, None)).moments if moments_file else []
        yield from (url for row in rows if (url := find_remote_clip_url(row, bucket)))


def register_library_folders(
    storage: Storage, library: LibraryContents, sources: Mapping[str, RegisteredSource], report: ImportReport
) -> None:
    """Let the server read the library's folders, where rows will name files in them. It blocks."""
    is_served = not report.copy and bool(library.list_media_files())
    if not is_served and not any(_has_absent_video_file(files, sources) for files in library.videos):
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


def _has_absent_video_file(files: LegacyVideoFiles, sources: Mapping[str, RegisteredSource]) -> bool:
    """Return whether the video's row will name a file that the library lacks: its source is in no bucket."""
    source = sources.get(files.identifier)
    return files.video is None and not (source and source.url.startswith("gs://"))
