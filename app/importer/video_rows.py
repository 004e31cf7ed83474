"""One video's transaction: files become rows, and rows that are up to date stay as they are."""

import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import Any, TypeVar

import psycopg
from tenacity import stop_after_attempt, wait_chain, wait_fixed, wait_none

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
from app.database import Connection, open_async_connection
from app.database.errors import (
    describe_database_failure,
    is_session_lost,
    make_connection_error,
    translate_database_error,
)
from app.database.queries import lift_statement_timeout
from app.importer.legacy_records import TRANSCRIPTION_SERVICE, LegacyRun, LegacyTranscript
from app.importer.locations import FileLocations, LibraryFileCopier, StoredFileFinder, read_row_urls
from app.importer.moment_rows import (
    ConfigCache,
    VideoTransaction,
    VideoWriteResult,
    find_changed_columns,
    find_or_create_configs,
    write_moments_and_clips,
)
from app.importer.prepared_videos import AddressCertainty, PreparedVideo
from app.importer.report import EntryKind, FileReporter
from app.models import PipelineRun, Transcript, Video
from app.repositories import (
    GenerationConfigRepository,
    RunRepository,
    ThumbnailRepository,
    TranscriptRepository,
    VideoRepository,
)
from app.repositories.media import PlayableCopyRepository
from app.repositories.runs import make_run_identifier

# Classes 08 (connection) and 53 (resources), 57P0x (shutdown and start), 25006 (read-only), 42501 (missing right):
# every other video would fail too.
_CONNECTION_STATES = re.compile(r"08...|53...|57P0.|25006|42501")
# Errors that concern one video only.
_OTHER_STATES = {
    "40001": "another transaction changed its rows at the same time",
    "40P01": "another transaction and its own waited for each other",
    "55P03": "another transaction held its rows for too long",
    "57014": "PostgreSQL stopped one of its statements",
}
_MEDIA_COLUMNS = ("duration_seconds", "video_codec", "audio_codec", "resolution", "frame_rate")
_RUN_COLUMNS = ("status", "completed_at", "duration_seconds", "error_stage", "error_message")


def to_database_unavailable(error: psycopg.Error) -> DatabaseUnavailable | None:
    """Return the error to raise where no video can be written, or None for an error that concerns one video."""
    if _CONNECTION_STATES.fullmatch(error.sqlstate or ""):
        return DatabaseUnavailable(describe_database_failure(error, {}) or "The database is not available")
    return None


def explain_failed_write(error: Exception) -> str:
    if not isinstance(error, psycopg.Error):
        return str(error) or type(error).__name__
    if sentence := _OTHER_STATES.get(error.sqlstate or ""):
        return _append_database_message(sentence, error)
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return _append_database_message("the connection broke while it was written", error)
    return str(translate_database_error(error) or error) or type(error).__name__


def _append_database_message(sentence: str, error: psycopg.Error) -> str:
    cause = error.diag.message_primary or next(iter(str(error).splitlines()), "")
    return f"{sentence}: {cause}" if cause else sentence


async def write_video(
    conn: Connection, prepared: PreparedVideo, locations: FileLocations, bucket: str | None, cache: ConfigCache
) -> VideoWriteResult:
    """Write all rows of a video inside the caller's transaction."""
    transaction = await _write_video_row(conn, prepared, locations)
    transcript_id = await _write_transcript_row(transaction)
    if configs := [moment.config for moment in prepared.moments if moment.config is not None]:
        reporter = transaction.reporter_for(prepared.files.moments)
        transaction.written.configs = await find_or_create_configs(conn, configs, transcript_id, cache, reporter)
    await write_moments_and_clips(transaction, bucket)
    await _write_thumbnail(transaction)
    run_identifiers: set[str] = set()
    for run in prepared.runs:
        run_identifiers.add(await _write_pipeline_run(transaction, run, run_identifiers))
    return transaction.written


async def _write_video_row(conn: Connection, prepared: PreparedVideo, locations: FileLocations) -> VideoTransaction:
    """Insert or update the row of a video, and return the transaction for its other rows."""
    videos, values, written = VideoRepository(conn), _known_video_columns(prepared), VideoWriteResult()
    url = locations.url_of(prepared.video_file) if prepared.video_file else prepared.address.url
    written.elsewhere += not url.startswith("file:") and prepared.video_file is None
    stored = await videos.lock_video(prepared.identifier)
    if stored is None:
        video = await videos.create(identifier=prepared.identifier, cloud_url=url, **values)
        written.count_written_row("videos", None)
        await _store_early_end_of_file(conn, prepared, video)
        return VideoTransaction(conn, prepared, locations, video, True, written)
    await videos.mark_download_complete(stored.id)
    if locations.keeps_stored_url(stored.cloud_url, url):
        values = {name: value for name, value in values.items() if name == "source_url"}
        _report_unreplaced_file(prepared, locations, stored, written)
    elif _is_better_address(prepared, locations, stored):
        values["cloud_url"] = url
    changes = find_changed_columns(stored, values)
    written.count_written_row("videos", stored, changes)
    video = await videos.update(stored.id, **changes) or stored
    if video.cloud_url == url:
        await _store_early_end_of_file(conn, prepared, video)
    return VideoTransaction(conn, prepared, locations, video, False, written)


async def _store_early_end_of_file(conn: Connection, prepared: PreparedVideo, video: Video) -> None:
    media = prepared.video_file.media if prepared.video_file else None
    if media is not None and media.ends_early:
        await PlayableCopyRepository(conn).store_early_end(video.id, video.cloud_url, media.declared_seconds)


def _report_unreplaced_file(
    prepared: PreparedVideo, locations: FileLocations, stored: Video, written: VideoWriteResult
) -> None:
    if prepared.video_file is not None and stored.cloud_url != locations.copy_urls[prepared.video_file.url]:
        reporter = FileReporter(None, prepared.identifier, written.entries).for_file(prepared.video_file.path)
        reason = "the server has another file of this video, which stays"
        reporter.add_entry(EntryKind.KEPT, reason, stored.cloud_url)


async def _write_transcript_row(transaction: VideoTransaction) -> int | None:
    transcripts, transcript = TranscriptRepository(transaction.conn), transaction.prepared.transcript
    stored = None if transaction.is_new else await transcripts.get_by_video(transaction.video.id)
    if transcript is None:
        return stored.id if stored else None
    if stored is None:
        transaction.written.count_written_row("transcripts", None)
        return await _create_transcript(transaction, transcript)
    changes = find_changed_columns(stored, _transcript_columns(transcript))
    transaction.written.count_written_row("transcripts", stored, changes)
    return await _replace_transcript(transaction, stored, transcript) if changes else stored.id


async def _create_transcript(transaction: VideoTransaction, transcript: LegacyTranscript) -> int:
    values = _transcript_columns(transcript)
    created = await TranscriptRepository(transaction.conn).create(video_id=transaction.video.id, **values)
    return created.id


async def _replace_transcript(transaction: VideoTransaction, stored: Transcript, transcript: LegacyTranscript) -> int:
    """Replace a transcript; its configs and their moments move to the new one before the old one is deleted."""
    configs = GenerationConfigRepository(transaction.conn)
    config_ids = await configs.detach_transcript(stored.id)
    await TranscriptRepository(transaction.conn).delete(stored.id)
    new_id = await _create_transcript(transaction, transcript)
    await configs.attach_transcript(config_ids, new_id)
    return new_id


async def _write_thumbnail(transaction: VideoTransaction) -> None:
    thumbnail, thumbnails = transaction.prepared.thumbnail, ThumbnailRepository(transaction.conn)
    if thumbnail is None:
        return
    url = transaction.locations.url_of(thumbnail)
    values: dict[str, Any] = {"cloud_url": url, "file_size_kb": thumbnail.file_size_kb}
    stored = None if transaction.is_new else await thumbnails.get_by_video(transaction.video.id)
    if stored is None:
        transaction.written.count_written_row("thumbnails", None)
        await thumbnails.create(video_id=transaction.video.id, **values)
    else:
        changes = (
            {}
            if transaction.locations.keeps_stored_url(stored.cloud_url, url)
            else find_changed_columns(stored, values)
        )
        transaction.written.count_written_row("thumbnails", stored, changes)
        await thumbnails.update(stored.id, **changes)


async def _write_pipeline_run(transaction: VideoTransaction, run: LegacyRun, used_identifiers: set[str]) -> str:
    runs = RunRepository(transaction.conn)
    identifier, stored = await _choose_run_identifier(transaction, run, used_identifiers)
    values = {name: getattr(run, name) for name in _RUN_COLUMNS}
    changes = find_changed_columns(stored, values) if stored else {}
    transaction.written.count_written_row("pipeline_history", stored, changes)
    if stored:
        await runs.update(stored.id, **changes)
    else:
        video_id, started_at = transaction.video.id, run.started_at
        await runs.create(
            identifier=identifier, video_id=video_id, pipeline_type="full", started_at=started_at, **values
        )
    return identifier


async def _choose_run_identifier(
    transaction: VideoTransaction, run: LegacyRun, used_identifiers: set[str]
) -> tuple[str, PipelineRun | None]:
    """Return the identifier for a run, and the row of this video that has it already, if any."""
    runs, video, identifier = RunRepository(transaction.conn), transaction.video, run.legacy_id
    started_at_ms = round(run.started_at.replace(tzinfo=UTC).timestamp() * 1000)
    while True:
        if identifier is not None and identifier not in used_identifiers:
            stored = await runs.get_by_identifier(identifier)
            if stored is None or stored.video_id == video.id:
                break
        identifier, started_at_ms = make_run_identifier(video.identifier, started_at_ms), started_at_ms + 1
    if identifier != run.legacy_id:
        reason = "has no request_id" if run.legacy_id is None else "another run has its request_id"
        change = {"from": run.legacy_id, "to": identifier}
        reporter = transaction.reporter_for(transaction.prepared.files.history)
        reporter.add_entry(EntryKind.RENAMED, reason, change, run.row)
    return identifier, stored


def _known_video_columns(prepared: PreparedVideo) -> dict[str, Any]:
    """Return the columns that the files know; others keep their values."""
    media = prepared.video_file.media if prepared.video_file else None
    values = {name: getattr(media, name, None) for name in _MEDIA_COLUMNS}
    values |= {"source_url": prepared.source_url, "file_size_kb": prepared.file_size_kb}
    return {name: value for name, value in values.items() if value is not None}


def _is_better_address(prepared: PreparedVideo, locations: FileLocations, stored: Video) -> bool:
    """Return whether the new address wins: a file that exists, or a registry address over an assumed or older one."""
    if prepared.address.certainty is AddressCertainty.NAMED:
        is_assumed = not stored.cloud_url.startswith("gs://") or stored.cloud_url in locations.missing_urls
        return is_assumed or stored.cloud_url == stored.source_url
    return prepared.address.certainty is AddressCertainty.PRESENT


def _transcript_columns(transcript: LegacyTranscript) -> dict[str, Any]:
    return {
        "full_text": transcript.full_text,
        "word_timestamps": transcript.words,
        "segment_timestamps": transcript.segments,
        "number_of_words": len(transcript.words),
        "number_of_segments": len(transcript.segments),
        "transcription_service": TRANSCRIPTION_SERVICE,
        "processing_time_seconds": transcript.processing_time_seconds,
    }


_T = TypeVar("_T")

# Conflicts with other transactions pass with a retry; the last wait is long enough for a restart of PostgreSQL.
_RETRIED_ERRORS = (
    DatabaseUnavailable,
    psycopg.OperationalError,
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,
)
_WRITE_POLICY = RetryPolicy(
    lambda error: isinstance(error, _RETRIED_ERRORS) and not isinstance(error, psycopg.errors.ProgramLimitExceeded),
    wait_chain(*map(wait_fixed, (0.1, 0.5, 2.0, 5.0))),
    stop_after_attempt(5),
)


class _CopyDeleted(Exception):
    """The copies of a video's files were deleted before its rows were written."""


_COPY_POLICY = RetryPolicy(_CopyDeleted, wait_none(), stop_after_attempt(4))


@dataclass(frozen=True, slots=True)
class VideoWriterOptions:
    """Shared by the writers of an import: `dry_run` rolls every video back; without `copier` no file is copied."""

    settings: Settings
    finder: StoredFileFinder
    dry_run: bool
    bucket: str | None
    configs: ConfigCache
    copier: LibraryFileCopier | None


class VideoWriter:
    """Writes videos one after another, over a connection of its own until `aclose`."""

    def __init__(self, options: VideoWriterOptions) -> None:
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self._conn: Connection | None = None

    async def aclose(self) -> None:
        self._conn = None
        await self._stack.aclose()

    async def write_with_retries(self, prepared: PreparedVideo) -> VideoWriteResult:
        """Write a video; copy its files first where files are copied.

        Raises `DatabaseUnavailable` where no other video can be written either, and what `copy_files` raises.
        """
        row_urls = await self._call_with_retries(prepared, lambda conn: read_row_urls(conn, prepared.identifier))

        async def copy_and_write() -> VideoWriteResult:
            if self._options.copier is None:
                locations = await self._options.finder.locate_files(prepared, row_urls, is_copying=False)
            else:
                locations = await self._options.copier.copy_files(prepared, row_urls)
            return await self._call_with_retries(prepared, partial(self._write_in_one_transaction, prepared, locations))

        return await call_with_retries(copy_and_write, _COPY_POLICY)

    async def _write_in_one_transaction(
        self, prepared: PreparedVideo, locations: FileLocations, conn: Connection
    ) -> VideoWriteResult:
        options = self._options
        async with conn.transaction(force_rollback=options.dry_run):
            # A long transcript is one statement, and no client waits for its answer.
            await lift_statement_timeout(conn)
            if options.copier is not None:
                # The lock of deletions, which delete files that no row names.
                await VideoRepository(conn).lock_video_identifier(prepared.identifier)
                if not await options.copier.has_all_copies(locations):
                    raise _CopyDeleted("its files were deleted while they were copied")
            written = await write_video(conn, prepared, locations, options.bucket, options.configs)
        written.in_place = locations.count_files_served_from_library(prepared)
        options.configs.add_configs(written.configs, is_stored=not options.dry_run)
        return written

    async def _call_with_retries(self, prepared: PreparedVideo, action: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Call the action; again where retrying may help, and once without a transcript that is too long."""
        call = partial(self._call_on_own_connection, action)
        try:
            return await call_with_retries(call, _WRITE_POLICY, before_wait=self._clear_config_ids_after_deletion)
        except psycopg.errors.ProgramLimitExceeded as error:
            _remove_transcript(prepared, error)
        return await self._call_with_retries(prepared, action)

    def _clear_config_ids_after_deletion(self, failed: FailedCall) -> None:
        if isinstance(failed.error, psycopg.errors.ForeignKeyViolation):
            self._options.configs.clear_config_ids()

    async def _call_on_own_connection(self, action: Callable[[Connection], Awaitable[_T]]) -> _T:
        conn = await self._open_connection()
        try:
            return await action(conn)
        except psycopg.Error as error:
            if is_session_lost(error):
                await self.aclose()
            if gone := to_database_unavailable(error):
                raise gone from error
            raise

    async def _open_connection(self) -> Connection:
        if self._conn is None or self._conn.closed:
            await self.aclose()
            self._stack = contextlib.AsyncExitStack()
            settings = self._options.settings
            try:
                self._conn = await self._stack.enter_async_context(open_async_connection(settings))
            except psycopg.OperationalError as error:
                raise make_connection_error(error, settings.database_parameters) from error
        return self._conn


def _remove_transcript(prepared: PreparedVideo, error: psycopg.Error) -> None:
    """Remove a transcript with too many words for PostgreSQL's text search; raise the error where there is none."""
    if prepared.transcript is None:
        raise error
    reason, content = f"the transcript is too long: {error.diag.message_primary}", prepared.transcript.to_json()
    prepared.reporter.for_file(prepared.files.transcript).add_entry(EntryKind.REFUSED, reason, content)
    prepared.transcript = None
