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
from app.importer.legacy_files import REGISTRY_FILE, LibraryContents, find_library_root, scan_library
from app.importer.legacy_records import RegisteredSource, parse_url_registry
from app.importer.locations import (
    LibraryFileCopier,
    StoredFileFinder,
    refuse_bucket_with_library_urls,
    refuse_storage_in_library,
    register_library_folders,
)
from app.importer.moment_rows import ConfigCache
from app.importer.moments import legacy_clip_name
from app.importer.prepared_videos import PreparedVideo, parse_file_or_report, prepare_video
from app.importer.report import EntryKind, FileReporter, ImportReport, ReportEntry
from app.importer.video_rows import VideoWriter, VideoWriterOptions, explain_failed_write
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
    """`dry_run` rolls every video back, `bucket` has the clips of the moments, `copy` copies files into storage."""

    dry_run: bool = False
    bucket: str | None = None
    copy: bool = False


class ImportProgress(Protocol):
    """Shows the progress of an import."""

    def start_progress(self, video_count: int, total_bytes: int) -> None: ...

    def update_progress(self, report: ImportReport) -> None: ...

    def add_copied_bytes(self, size: int) -> None: ...

    def stop_progress(self) -> None: ...


async def import_library(
    settings: Settings, storage: Storage, directory: Path, options: ImportOptions, progress: ImportProgress
) -> ImportReport:
    """Import the legacy library in `directory`, or in its `static`, and return the report; no file of it is changed.

    Raises `NotALibrary`, `ConfigurationError`, `DatabaseUnavailable` and `StorageUnavailable` before anything is
    written, and `ImportStopped`.
    """
    root = find_library_root(directory)
    refuse_storage_in_library(storage, root)
    await _require_writable_database(settings)
    if options.copy:
        await _require_bucket(storage)
    report = ImportReport(root, options.dry_run, options.copy)
    started = time.perf_counter()
    try:
        await _LibraryImport(settings, storage, options, progress, report).run()
    except BaseException:
        report.close()
        raise
    report.seconds = time.perf_counter() - started
    return report


async def _require_writable_database(settings: Settings) -> None:
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


async def _require_bucket(storage: Storage) -> None:
    try:
        await storage.list_names("videos")
    except FileMissing:
        raise StorageUnavailable("STORAGE_URL names a bucket that does not exist") from None


class _LibraryImport:
    """One import of a library: reads its videos in order, and writes them over a few connections at once."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        options: ImportOptions,
        progress: ImportProgress,
        report: ImportReport,
    ) -> None:
        self._storage = storage
        self._progress = progress
        self._report = report
        self._configs = ConfigCache()
        copier = LibraryFileCopier(storage, report.copied, progress.add_copied_bytes, options.dry_run)
        self._options = VideoWriterOptions(
            settings,
            StoredFileFinder(storage),
            options.dry_run,
            options.bucket,
            self._configs,
            copier if options.copy else None,
        )
        self._database_error: DatabaseUnavailable | None = None

    async def run(self) -> None:
        sources, library = await asyncio.to_thread(self._scan_and_register_library)
        total_bytes = sum(map(_size_or_zero, library.list_media_files())) if self._report.copy else 0
        self._progress.start_progress(len(library.videos), total_bytes)
        # One slot: what is read ahead is held in memory.
        queue: asyncio.Queue[PreparedVideo | None] = asyncio.Queue(maxsize=1)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_WRITERS):
                    tasks.create_task(self._write_queued_videos(queue))
                await self._queue_videos(library, sources, queue)
        except ExceptionGroup as group:
            if (gone := group.subgroup((StorageFull, StorageUnavailable))) is None:
                raise
            done = f"{self._report.videos} of {len(library.videos)} videos are in; import again to go on"
            raise ImportStopped(f"{gone.exceptions[0]} ({done})") from None
        finally:
            self._progress.stop_progress()
        self._report.row_counts.update(self._configs.count_prompt_and_config_rows())

    def _scan_and_register_library(self) -> tuple[dict[str, RegisteredSource], LibraryContents]:
        """Return the URL registry and the files of the library, and refuse a storage that would own any of them."""
        reporter, root = FileReporter(None, None), self._report.directory
        registry = root / REGISTRY_FILE
        sources = parse_file_or_report(
            registry if registry.exists() else None, parse_url_registry, reporter.for_file(REGISTRY_FILE)
        )
        sources = sources or {}
        library = scan_library(root, set(sources), reporter)
        refuse_bucket_with_library_urls(self._storage, library, sources, self._options.bucket)
        register_library_folders(self._storage, library, sources, self._report)
        self._report.add_entries(reporter.entries)
        return sources, library

    async def _queue_videos(
        self,
        library: LibraryContents,
        sources: dict[str, RegisteredSource],
        queue: asyncio.Queue[PreparedVideo | None],
    ) -> None:
        """Read the videos in order, and queue them: of two videos with one moment id, the first keeps it."""
        owners: dict[str, str] = {}
        unclaimed = set(library.clips)
        for files in library.videos:
            try:
                source = sources.get(files.identifier)
                prepared = await asyncio.to_thread(prepare_video, files, library, source)
            except Exception as error:  # any defect concerns this video only
                self._report_failure(files.identifier, error)
                continue
            ids = [moment.legacy_id for moment in prepared.moments if moment.legacy_id is not None]
            prepared.ids_of_other_videos = frozenset(
                each for each in ids if owners.setdefault(each, files.identifier) != files.identifier
            )
            unclaimed.difference_update(legacy_clip_name(files.identifier, each) for each in ids)
            await queue.put(prepared)
        for _ in range(_WRITERS):
            await queue.put(None)
        self._report.add_entries(
            ReportEntry(EntryKind.ORPHAN, "a clip of no moment", f"moment_clips/{name}") for name in sorted(unclaimed)
        )

    async def _write_queued_videos(self, queue: asyncio.Queue[PreparedVideo | None]) -> None:
        async with contextlib.aclosing(VideoWriter(self._options)) as writer:
            while (prepared := await queue.get()) is not None:
                await self._write_or_report_failure(writer, prepared)

    async def _write_or_report_failure(self, writer: VideoWriter, prepared: PreparedVideo) -> None:
        try:
            if self._database_error is not None:
                raise self._database_error
            written = await writer.write_with_retries(prepared)
        except (StorageFull, StorageUnavailable):
            raise
        except Exception as error:  # any other concerns this video only
            self._database_error = error if isinstance(error, DatabaseUnavailable) else self._database_error
            self._report.add_entries(prepared.reporter.entries)
            self._report_failure(prepared.identifier, error)
        else:
            self._report.add_entries([*prepared.reporter.entries, *written.entries])
            self._report.videos += 1
            self._report.in_place += written.in_place
            self._report.elsewhere += written.elsewhere
            self._report.row_counts.update(written.row_counts)
            self._progress.update_progress(self._report)

    def _report_failure(self, identifier: str, error: Exception) -> None:
        reason = explain_failed_write(error)
        _log.error("%s was not imported: %s", identifier, reason)
        self._report.add_entries([ReportEntry(EntryKind.FAILED, reason, video=identifier)])
        self._progress.update_progress(self._report)


def _size_or_zero(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
