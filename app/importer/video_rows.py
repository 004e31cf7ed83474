"""One video's transaction: files become rows, and rows that are up to date stay as they are."""

import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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
from app.importer.legacy_records import TRANSCRIPTION_SERVICE, LegacyRun, LegacyTranscript
from app.importer.locations import FileCopier, FileLocations, LocationFinder, StoredUrls, read_stored_urls
from app.importer.moment_rows import (
    KnownConfigs,
    VideoTransaction,
    VideoWriteResult,
    find_changes,
    store_configs,
    write_clips,
    write_moments,
)
from app.importer.prepared_videos import AddressCertainty, PreparedVideo
from app.importer.report import EntryKind, ReportNotes
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


def connection_failure(error: psycopg.Error) -> DatabaseUnavailable | None:
    """Return the error to raise where PostgreSQL is unavailable, or None for an error about one video."""
    if _CONNECTION_STATES.fullmatch(error.sqlstate or ""):
        return DatabaseUnavailable(describe_database_failure(error, {}) or "The database is not available")
    return None


def describe_failure(error: Exception) -> str:
    """Return one sentence for why a video was not imported."""
    if not isinstance(error, psycopg.Error):
        return str(error) or type(error).__name__
    if sentence := _OTHER_STATES.get(error.sqlstate or ""):
        return _describe_with_cause(sentence, error)
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return _describe_with_cause("the connection broke while it was written", error)
    return str(translate_database_error(error) or error) or type(error).__name__


def _describe_with_cause(sentence: str, error: psycopg.Error) -> str:
    cause = error.diag.message_primary or next(iter(str(error).splitlines()), "")
    return f"{sentence}: {cause}" if cause else sentence


async def write_video(
    conn: Connection, prepared: PreparedVideo, locations: FileLocations, bucket: str | None, known: KnownConfigs
) -> VideoWriteResult:
    """Write all rows of a video inside the caller's transaction."""
    written = VideoWriteResult()
    transaction = await _write_video(conn, prepared, locations, written)
    transcript_id = await _write_transcript(transaction)
    configs = [moment.config for moment in prepared.moments if moment.config is not None]
    if configs:
        written.configs = await store_configs(
            conn, configs, transcript_id, known, transaction.notes_about(prepared.moments_file)
        )
    moments = await write_moments(transaction)
    await write_clips(transaction, moments, bucket)
    await _write_thumbnail(transaction)
    await _write_runs(transaction)
    return written


async def _write_video(
    conn: Connection, prepared: PreparedVideo, locations: FileLocations, written: VideoWriteResult
) -> VideoTransaction:
    videos, values = VideoRepository(conn), _video_values(prepared)
    url = locations.url_of(prepared.video_file) if prepared.video_file else prepared.address.url
    written.elsewhere += not url.startswith("file:") and prepared.video_file is None
    stored = await videos.lock_video(prepared.identifier)
    if stored is None:
        video = await videos.create(identifier=prepared.identifier, cloud_url=url, **values)
        written.count_row("videos", None)
        await _store_early_end(conn, prepared, video)
        return VideoTransaction(conn, prepared, locations, video, True, written)
    await videos.mark_download_complete(stored.id)
    if locations.keeps_stored_url(stored.cloud_url, url):
        values = {name: value for name, value in values.items() if name == "source_url"}
        _report_unreplaced_file(prepared, locations, stored, written)
    elif _is_better_address(prepared, locations, stored):
        values["cloud_url"] = url
    changes = find_changes(stored, values)
    written.count_row("videos", stored, changes)
    video = await videos.update(stored.id, **changes) or stored
    if video.cloud_url == url:
        await _store_early_end(conn, prepared, video)
    return VideoTransaction(conn, prepared, locations, video, False, written)


async def _store_early_end(conn: Connection, prepared: PreparedVideo, video: Video) -> None:
    media = prepared.video_file.media if prepared.video_file else None
    if media is not None and media.ends_early:
        await PlayableCopyRepository(conn).store_early_end(video.id, video.cloud_url, media.declared_seconds)


def _report_unreplaced_file(
    prepared: PreparedVideo, locations: FileLocations, stored: Video, written: VideoWriteResult
) -> None:
    if prepared.video_file is not None and stored.cloud_url != locations.copy_urls[prepared.video_file.url]:
        notes = ReportNotes(prepared.video_file.name, prepared.identifier, written.entries)
        notes.add(EntryKind.KEPT, "the server has another file of this video, which stays", stored.cloud_url)


async def _write_transcript(transaction: VideoTransaction) -> int | None:
    transcripts, transcript = TranscriptRepository(transaction.conn), transaction.prepared.transcript
    stored = None if transaction.is_new else await transcripts.get_by_video(transaction.video.id)
    if transcript is None:
        return stored.id if stored else None
    if stored is None:
        transaction.written.count_row("transcripts", None)
        return await _create_transcript(transaction, transcript)
    changes = find_changes(stored, _transcript_values(transcript))
    transaction.written.count_row("transcripts", stored, changes)
    return await _replace_transcript(transaction, stored, transcript) if changes else stored.id


async def _create_transcript(transaction: VideoTransaction, transcript: LegacyTranscript) -> int:
    values = _transcript_values(transcript)
    created = await TranscriptRepository(transaction.conn).create(video_id=transaction.video.id, **values)
    return created.id


async def _replace_transcript(transaction: VideoTransaction, old: Transcript, transcript: LegacyTranscript) -> int:
    """Replace a transcript; its configs and their moments move to the new one before the old one is deleted."""
    configs = GenerationConfigRepository(transaction.conn)
    config_ids = await configs.detach_transcript(old.id)
    await TranscriptRepository(transaction.conn).delete(old.id)
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
        transaction.written.count_row("thumbnails", None)
        await thumbnails.create(video_id=transaction.video.id, **values)
    else:
        changes = {} if transaction.locations.keeps_stored_url(stored.cloud_url, url) else find_changes(stored, values)
        transaction.written.count_row("thumbnails", stored, changes)
        await thumbnails.update(stored.id, **changes)


async def _write_runs(transaction: VideoTransaction) -> None:
    named: set[str] = set()
    for run in transaction.prepared.runs:
        named.add(await _write_run(transaction, run, named))


async def _write_run(transaction: VideoTransaction, run: LegacyRun, named: set[str]) -> str:
    runs = RunRepository(transaction.conn)
    name, stored = await _choose_run_identifier(transaction, run, named)
    values = _run_values(run)
    changes = find_changes(stored, values) if stored else {}
    transaction.written.count_row("pipeline_history", stored, changes)
    if stored:
        await runs.update(stored.id, **changes)
    else:
        await runs.create(
            identifier=name, video_id=transaction.video.id, pipeline_type="full", started_at=run.started_at, **values
        )
    return name


async def _choose_run_identifier(
    transaction: VideoTransaction, run: LegacyRun, named: set[str]
) -> tuple[str, PipelineRun | None]:
    """Return an unused identifier for the run, or the one of its own row, and that row."""
    runs, video = RunRepository(transaction.conn), transaction.video
    name, milliseconds = run.legacy_id, run.started_at_ms
    while True:
        if name is not None and name not in named:
            stored = await runs.get_by_identifier(name)
            if stored is None or stored.video_id == video.id:
                break
        name, milliseconds = make_run_identifier(video.identifier, milliseconds), milliseconds + 1
    if name != run.legacy_id:
        reason = "has no request_id" if run.legacy_id is None else "another run has its request_id"
        change = {"from": run.legacy_id, "to": name}
        transaction.notes_about(transaction.prepared.history_file).add(EntryKind.RENAMED, reason, change, row=run.row)
    return name, stored


def _video_values(prepared: PreparedVideo) -> dict[str, Any]:
    """Return the columns that the files know; others keep their values."""
    media = prepared.video_file.media if prepared.video_file else None
    values = {
        "source_url": prepared.source_url,
        "file_size_kb": prepared.file_size_kb,
        "duration_seconds": media.duration_seconds if media else None,
        "video_codec": media.video_codec if media else None,
        "audio_codec": media.audio_codec if media else None,
        "resolution": media.resolution if media else None,
        "frame_rate": media.frame_rate if media else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _is_better_address(prepared: PreparedVideo, locations: FileLocations, stored: Video) -> bool:
    """Return whether the new address wins: a file that exists, or a registry address over an assumed or older one."""
    if prepared.address.certainty is AddressCertainty.NAMED:
        is_assumed = not stored.cloud_url.startswith("gs://") or stored.cloud_url in locations.missing_urls
        return is_assumed or stored.cloud_url == stored.source_url
    return prepared.address.certainty is AddressCertainty.PRESENT


def _transcript_values(transcript: LegacyTranscript) -> dict[str, Any]:
    return {
        "full_text": transcript.full_text,
        "word_timestamps": transcript.words,
        "segment_timestamps": transcript.segments,
        "number_of_words": len(transcript.words),
        "number_of_segments": len(transcript.segments),
        "transcription_service": TRANSCRIPTION_SERVICE,
        "processing_time_seconds": transcript.processing_time_seconds,
    }


def _run_values(run: LegacyRun) -> Mapping[str, Any]:
    return {
        "status": run.status,
        "completed_at": run.completed_at,
        "duration_seconds": run.duration_seconds,
        "error_stage": run.error_stage,
        "error_message": run.error_message,
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
    """The video was deleted while its files were copied."""

    def __init__(self) -> None:
        super().__init__("its files were deleted while they were copied")


_COPY_POLICY = RetryPolicy(_CopyDeleted, wait_none(), stop_after_attempt(4))


@dataclass(frozen=True, slots=True)
class VideoWriterOptions:
    """Shared by the writers of an import: `dry_run` rolls every video back; without `copier` no file is copied."""

    settings: Settings
    finder: LocationFinder
    dry_run: bool
    bucket: str | None
    known: KnownConfigs
    copier: FileCopier | None


class VideoWriter:
    """One of the writers of an import, with a connection of its own until `aclose`."""

    def __init__(self, options: VideoWriterOptions) -> None:
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self._conn: Connection | None = None

    async def aclose(self) -> None:
        self._conn = None
        await self._stack.aclose()

    async def write_with_retries(self, prepared: PreparedVideo) -> VideoWriteResult:
        """Write a video; copy its files first where files are copied.

        Raises `DatabaseUnavailable` where no other video can be written either, and what `FileCopier.copy` raises.
        """
        stored = await self._call_with_retries(prepared, lambda conn: read_stored_urls(conn, prepared.identifier))

        async def copy_and_write() -> VideoWriteResult:
            locations = await self._locate_files(prepared, stored)
            return await self._call_with_retries(
                prepared, partial(self._write_once, prepared=prepared, locations=locations)
            )

        return await call_with_retries(copy_and_write, _COPY_POLICY)

    async def _locate_files(self, prepared: PreparedVideo, stored: StoredUrls) -> FileLocations:
        if self._options.copier is None:
            return await self._options.finder.find_locations(prepared, stored, is_copying=False)
        return await self._options.copier.copy_files(prepared, stored)

    async def _write_once(
        self, conn: Connection, prepared: PreparedVideo, locations: FileLocations
    ) -> VideoWriteResult:
        options = self._options
        async with conn.transaction(force_rollback=options.dry_run):
            # A long transcript is one statement, and no client waits for its answer.
            await conn.execute("SELECT set_config('statement_timeout', '0', true)")
            if options.copier is not None:
                # The lock of deletions, which delete files that no row names.
                await VideoRepository(conn).lock_video_identifier(prepared.identifier)
                if not await options.copier.has_all_copies(locations):
                    raise _CopyDeleted
            written = await write_video(conn, prepared, locations, options.bucket, options.known)
        written.in_place = locations.count_in_place(prepared)
        options.known.cache_configs(written.configs, is_stored=not options.dry_run)
        return written

    async def _call_with_retries(self, prepared: PreparedVideo, action: Callable[[Connection], Awaitable[_T]]) -> _T:
        call = partial(self._call_on_connection, action)
        try:
            return await call_with_retries(call, _WRITE_POLICY, before_wait=self._clear_configs)
        except psycopg.errors.ProgramLimitExceeded as error:
            _leave_out_transcript(prepared, error)
        return await self._call_with_retries(prepared, action)

    def _clear_configs(self, failed: FailedCall) -> None:
        if isinstance(failed.error, psycopg.errors.ForeignKeyViolation):
            self._options.known.clear_configs()

    async def _call_on_connection(self, action: Callable[[Connection], Awaitable[_T]]) -> _T:
        conn = await self._open_connection()
        try:
            return await action(conn)
        except psycopg.Error as error:
            if is_session_lost(error):
                await self.aclose()
            if gone := connection_failure(error):
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


def _leave_out_transcript(prepared: PreparedVideo, error: psycopg.Error) -> None:
    """Drop a transcript with too many words for PostgreSQL's text search, and import the rest."""
    if prepared.transcript is None:
        raise error
    reason = f"the transcript is too long: {error.diag.message_primary}"
    prepared.notes.about(prepared.transcript_file).add(EntryKind.REFUSED, reason, prepared.transcript.to_json())
    prepared.transcript = None
