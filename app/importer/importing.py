"""An import: one reader in the order of the identifiers, a few writers, one transaction per video."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable, FileMissing, StorageFull, StorageUnavailable, VideoMomentsError
from app.database import open_async_connection
from app.database.catalog import read_database_condition
from app.database.errors import READ_ONLY, make_connection_error, translate_database_error
from app.importer.legacy_files import (
    REGISTRY_FILE,
    LegacyVideoFiles,
    Library,
    UnreadableFile,
    find_library_root,
    read_json,
    scan_library,
)
from app.importer.legacy_records import VideoSource, parse_registry
from app.importer.locations import (
    FileCopier,
    LocationFinder,
    check_bucket_urls,
    check_storage_folder,
    register_library_folders,
)
from app.importer.moment_rows import KnownConfigs
from app.importer.moments import clip_name
from app.importer.prepared_videos import PreparedVideo, prepare_video
from app.importer.report import EntryKind, ImportReport, ReportEntry, ReportNotes
from app.importer.video_rows import VideoWriter, VideoWriterOptions, describe_failure
from app.repositories import VideoRepository
from app.storage import Storage

_log = logging.getLogger(__name__)

# PostgreSQL parses transcripts while the next video is read. Measured on two cores with 200 videos: one writer took at
# best 8.8 s, three 7.1 s, four no less.
_WRITERS = 3


class ImportStopped(VideoMomentsError):
    """The storage is full or unavailable; the next import continues after the videos that are in."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of an import: `dry_run` rolls every video back, `bucket` has the clips of the moments, and `copy` copies
    the files into storage."""

    dry_run: bool = False
    bucket: str | None = None
    copy: bool = False


class ImportProgress(Protocol):
    """Shows the progress of an import; sizes are bytes of copied files."""

    def start_progress(self, videos: int, size: int) -> None: ...

    def update_progress(self, report: ImportReport) -> None: ...

    def add_copied_bytes(self, size: int) -> None: ...

    def stop_progress(self) -> None: ...


async def import_library(
    settings: Settings, storage: Storage, directory: Path, options: ImportOptions, progress: ImportProgress
) -> ImportReport:
    """Import the legacy library in `directory`, or in the `static` inside it, and return the report.

    Nothing in it is changed. Raises `NoLibrary`, `ConfigurationError`, `DatabaseUnavailable` and `StorageUnavailable`
    before anything is written, and `ImportStopped`.
    """
    root = find_library_root(directory)
    check_storage_folder(storage, root)
    await _check_database(settings)
    if options.copy:
        await _check_storage(storage)
    report = ImportReport(root, options.dry_run, options.copy)
    started = time.perf_counter()
    try:
        await _ImportRun(settings, storage, root, options, progress, report).run()
    except BaseException:
        report.close()
        raise
    report.seconds = time.perf_counter() - started
    return report


async def _check_database(settings: Settings) -> None:
    try:
        async with open_async_connection(settings) as conn:
            condition = await read_database_condition(conn)
            if reason := condition.missing_rights_sentence or (READ_ONLY if condition.is_read_only else ""):
                raise DatabaseUnavailable(reason)
            await VideoRepository(conn).count()
    except psycopg.OperationalError as error:
        raise make_connection_error(error, settings.database_parameters) from None
    except psycopg.Error as error:
        raise translate_database_error(error) or error from None


async def _check_storage(storage: Storage) -> None:
    try:
        await storage.list_names("videos")
    except FileMissing:
        raise StorageUnavailable("STORAGE_URL names a bucket that does not exist") from None


class _ImportRun:
    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        root: Path,
        options: ImportOptions,
        progress: ImportProgress,
        report: ImportReport,
    ) -> None:
        self._root = root
        self._progress = progress
        self._report = report
        self._known = KnownConfigs()
        self._is_copying = options.copy
        copier = (
            FileCopier(storage, report.copied, progress.add_copied_bytes, options.dry_run) if options.copy else None
        )
        self._options = VideoWriterOptions(
            settings, LocationFinder(storage), options.dry_run, options.bucket, self._known, copier
        )
        self._storage = storage
        self._database_error: DatabaseUnavailable | None = None

    async def run(self) -> None:
        sources, library = await asyncio.to_thread(self._scan_library)
        self._progress.start_progress(len(library.videos), library.size_of_media() if self._is_copying else 0)
        # One slot: what is read ahead is held in memory.
        queue: asyncio.Queue[PreparedVideo | None] = asyncio.Queue(maxsize=1)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_WRITERS):
                    tasks.create_task(self._write_videos(queue))
                await self._prepare_videos(library, sources, queue)
        except ExceptionGroup as group:
            if (gone := group.subgroup((StorageFull, StorageUnavailable))) is None:
                raise
            raise self._import_stopped(gone.exceptions[0], len(library.videos)) from None
        finally:
            self._progress.stop_progress()
        self._report.add_tables(self._known.count_rows())

    def _import_stopped(self, error: Exception, videos: int) -> ImportStopped:
        return ImportStopped(f"{error} ({self._report.videos} of {videos} videos are in; import again to go on)")

    def _scan_library(self) -> tuple[dict[str, VideoSource], Library]:
        notes = ReportNotes(None, None)
        sources = _read_registry(self._root, notes.about(REGISTRY_FILE))
        library = scan_library(self._root, set(sources), notes)
        check_bucket_urls(self._storage, library, sources, self._options.bucket)
        register_library_folders(self._storage, library, sources, self._is_copying, self._report)
        self._report.add(notes.entries)
        return sources, library

    async def _prepare_videos(
        self, library: Library, sources: dict[str, VideoSource], queue: asyncio.Queue[PreparedVideo | None]
    ) -> None:
        """Read the videos in order: of two videos with one moment id, the first keeps it."""
        owners: dict[str, str] = {}
        unclaimed = set(library.clips)
        for files in library.videos:
            prepared = await self._prepare_video(files, library, sources)
            if prepared is None:
                continue
            ids = [moment.legacy_id for moment in prepared.moments if moment.legacy_id is not None]
            prepared.taken = frozenset(
                each for each in ids if owners.setdefault(each, files.identifier) != files.identifier
            )
            unclaimed.difference_update(clip_name(files.identifier, each) for each in ids)
            await queue.put(prepared)
        for _ in range(_WRITERS):
            await queue.put(None)
        self._report.add(
            ReportEntry(EntryKind.ORPHAN, "a clip of no moment", f"moment_clips/{name}") for name in sorted(unclaimed)
        )

    async def _prepare_video(
        self, files: LegacyVideoFiles, library: Library, sources: dict[str, VideoSource]
    ) -> PreparedVideo | None:
        try:
            return await asyncio.to_thread(prepare_video, files, library, sources.get(files.identifier))
        except Exception as error:  # any defect concerns this video only
            self._report_failure(files.identifier, error)
            return None

    async def _write_videos(self, queue: asyncio.Queue[PreparedVideo | None]) -> None:
        writer = VideoWriter(self._options)
        async with contextlib.aclosing(writer):
            while (prepared := await queue.get()) is not None:
                await self._write_video(writer, prepared)

    async def _write_video(self, writer: VideoWriter, prepared: PreparedVideo) -> None:
        try:
            if self._database_error is not None:
                raise self._database_error
            written = await writer.write_with_retries(prepared)
        except (StorageFull, StorageUnavailable):
            raise
        except Exception as error:  # as in _prepare
            self._database_error = error if isinstance(error, DatabaseUnavailable) else self._database_error
            self._report.add(prepared.notes.entries)
            self._report_failure(prepared.identifier, error)
        else:
            self._report.add(prepared.notes.entries)
            self._report.add(written.entries)
            self._report.videos += 1
            self._report.in_place += written.in_place
            self._report.elsewhere += written.elsewhere
            self._report.add_tables(written.tables)
            self._progress.update_progress(self._report)

    def _report_failure(self, identifier: str, error: Exception) -> None:
        reason = describe_failure(error)
        _log.error("%s was not imported: %s", identifier, reason)
        self._report.add([ReportEntry(EntryKind.FAILED, reason, video=identifier)])
        self._progress.update_progress(self._report)


def _read_registry(root: Path, notes: ReportNotes) -> dict[str, VideoSource]:
    path = root / REGISTRY_FILE
    if not path.exists():
        return {}
    content = None
    try:
        document = read_json(path)
        content = document.value
        return parse_registry(document, notes)
    except UnreadableFile as error:
        notes.add(EntryKind.REFUSED, str(error), content)
        return {}
