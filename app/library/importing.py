"""The run of an import: one reader in the order of the identifiers, a few writers, one transaction for each video."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.database import Connection, connect
from app.database.errors import connection_error, domain_error
from app.library.clips import clip_name
from app.library.configs import KnownConfigs
from app.library.failures import failure_reason, gone_database
from app.library.layout import REGISTRY, Library, VideoFiles, find_root, scan_library
from app.library.preparing import PreparedVideo, prepare_video
from app.library.reading import Unreadable, read_json
from app.library.registry import Source, parse_registry
from app.library.report import Entry, Kind, Notes, Report
from app.library.writing import write_video
from app.library.written import Written
from app.repositories import VideoRepository

_log = logging.getLogger(__name__)

# PostgreSQL parses transcripts while the next video is read. Measured on two cores with 200 videos: one writer took at
# best 8.8 s, three 7.1 s, four no less.
_WRITERS = 3
# What somebody else did at the same moment does not stand in the way a second time. The last pause is long enough for
# a PostgreSQL that restarts.
_PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import: `dry_run` rolls every video back, `bucket` is where the clips of the moments lie."""

    dry_run: bool = False
    bucket: str | None = None


class Progress(Protocol):
    """What wants to know how far an import is."""

    def begin(self, videos: int) -> None: ...

    def advance(self, report: Report) -> None: ...

    def end(self) -> None: ...


async def import_library(settings: Settings, directory: Path, options: ImportOptions, progress: Progress) -> Report:
    """Import the legacy library in `directory`, or in the `static` inside it, and say what was done.

    Nothing in it is changed. Raises `NoLibrary`, and `DatabaseUnavailable` before anything is written.
    """
    root = find_root(directory)
    await _check_database(settings)
    report = Report(root, options.dry_run)
    started = time.perf_counter()
    try:
        await _Import(settings, root, options, progress, report).run()
    except BaseException:
        report.close()
        raise
    report.seconds = time.perf_counter() - started
    return report


async def _check_database(settings: Settings) -> None:
    try:
        async with connect(settings) as conn:
            await VideoRepository(conn).count()
    except psycopg.OperationalError as error:
        raise connection_error(error, settings.database_parameters) from None
    except psycopg.Error as error:
        raise domain_error(error) or error from None


class _Import:
    def __init__(
        self, settings: Settings, root: Path, options: ImportOptions, progress: Progress, report: Report
    ) -> None:
        self._settings = settings
        self._root = root
        self._options = options
        self._progress = progress
        self._report = report
        self._known = KnownConfigs()
        self._gone: DatabaseUnavailable | None = None

    async def run(self) -> None:
        sources, library = await asyncio.to_thread(self._scan)
        self._progress.begin(len(library.videos))
        # One slot: what is read ahead is held in memory.
        queue: asyncio.Queue[PreparedVideo | None] = asyncio.Queue(maxsize=1)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_WRITERS):
                    tasks.create_task(self._write_all(queue))
                await self._read_all(library, sources, queue)
        finally:
            self._progress.end()
        self._report.add_tables(self._known.count())

    def _scan(self) -> tuple[dict[str, Source], Library]:
        notes = Notes(None, None)
        sources = _read_registry(self._root, notes.about(REGISTRY))
        library = scan_library(self._root, set(sources), notes)
        self._report.add(notes.entries)
        return sources, library

    async def _read_all(
        self, library: Library, sources: dict[str, Source], queue: asyncio.Queue[PreparedVideo | None]
    ) -> None:
        """Read the videos one by one. Which of two videos keeps an id that both have depends on their order alone."""
        owners: dict[str, str] = {}
        unclaimed = set(library.clips)
        for files in library.videos:
            prepared = await self._prepare(files, library, sources)
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
            Entry(Kind.ORPHAN, "a clip of no moment", f"moment_clips/{name}") for name in sorted(unclaimed)
        )

    async def _prepare(self, files: VideoFiles, library: Library, sources: dict[str, Source]) -> PreparedVideo | None:
        try:
            return await asyncio.to_thread(prepare_video, files, library, sources.get(files.identifier))
        except Exception as error:  # whatever it is, it is this video's and not the next one's
            self._fail(files.identifier, error)
            return None

    async def _write_all(self, queue: asyncio.Queue[PreparedVideo | None]) -> None:
        writer = _Writer(self._settings, self._options, self._known)
        async with contextlib.aclosing(writer):
            while (prepared := await queue.get()) is not None:
                await self._write(writer, prepared)

    async def _write(self, writer: "_Writer", prepared: PreparedVideo) -> None:
        try:
            if self._gone is not None:
                raise self._gone
            written = await writer.write(prepared)
        except Exception as error:  # as above
            self._gone = error if isinstance(error, DatabaseUnavailable) else self._gone
            self._report.add(prepared.notes.entries)
            self._fail(prepared.identifier, error)
        else:
            self._report.add(prepared.notes.entries)
            self._report.add(written.entries)
            self._report.videos += 1
            self._report.add_tables(written.tables)
            self._progress.advance(self._report)

    def _fail(self, identifier: str, error: Exception) -> None:
        reason = failure_reason(error)
        _log.error("%s was not imported: %s", identifier, reason)
        self._report.add([Entry(Kind.FAILED, reason, video=identifier)])
        self._progress.advance(self._report)


class _Writer:
    """Writes videos on one connection, and on another one when PostgreSQL has closed that."""

    def __init__(self, settings: Settings, options: ImportOptions, known: KnownConfigs) -> None:
        self._settings = settings
        self._options = options
        self._known = known
        self._stack = contextlib.AsyncExitStack()
        self._conn: Connection | None = None

    async def aclose(self) -> None:
        self._conn = None
        await self._stack.aclose()

    async def write(self, prepared: PreparedVideo) -> Written:
        """Write a video. Raises `DatabaseUnavailable` where no other video can be written either."""
        for pause in _PAUSES_SECONDS:
            try:
                return await self._try(prepared)
            except psycopg.errors.ProgramLimitExceeded as error:
                _leave_out_transcript(prepared, error)
            except (psycopg.Error, DatabaseUnavailable) as error:
                if not self._may_help_to_try_again(error):
                    raise
                await asyncio.sleep(pause)
        return await self._try(prepared)

    async def _try(self, prepared: PreparedVideo) -> Written:
        conn = await self._connection()
        try:
            async with conn.transaction(force_rollback=self._options.dry_run):
                written = await write_video(conn, prepared, self._options.bucket, self._known)
        except psycopg.Error as error:
            if gone := gone_database(error):
                raise gone from error
            raise
        self._known.learn(written.configs, is_stored=not self._options.dry_run)
        return written

    async def _connection(self) -> Connection:
        if self._conn is None or self._conn.closed:
            await self.aclose()
            self._stack = contextlib.AsyncExitStack()
            try:
                conn = await self._stack.enter_async_context(connect(self._settings))
                # A long transcript is one statement, and nobody waits for its answer.
                await conn.execute("SELECT set_config('statement_timeout', '0', false)")
            except psycopg.OperationalError as error:
                raise connection_error(error, self._settings.database_parameters) from error
            self._conn = conn
        return self._conn

    def _may_help_to_try_again(self, error: Exception) -> bool:
        if isinstance(error, psycopg.errors.ForeignKeyViolation):
            self._known.forget()
            return True
        return isinstance(error, DatabaseUnavailable | psycopg.OperationalError | psycopg.errors.UniqueViolation)


def _read_registry(root: Path, notes: Notes) -> dict[str, Source]:
    path = root / REGISTRY
    if not path.exists():
        return {}
    content = None
    try:
        document = read_json(path)
        content = document.value
        return parse_registry(document, notes)
    except Unreadable as error:
        notes.add(Kind.REFUSED, str(error), content)
        return {}


def _leave_out_transcript(prepared: PreparedVideo, error: psycopg.Error) -> None:
    """A text may have too many words for PostgreSQL's text search; the rest of its video need not wait for it."""
    if prepared.transcript is None:
        raise error
    reason = f"the transcript is too long: {error.diag.message_primary}"
    prepared.notes.about(prepared.transcript_file).add(Kind.REFUSED, reason, prepared.transcript.to_json())
    prepared.transcript = None
