"""Writes videos on one connection, and on another one when PostgreSQL has closed that."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import psycopg

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.database import Connection, connect
from app.database.errors import connection_error, is_session_lost
from app.importer.configs import KnownConfigs
from app.importer.copying import Copier
from app.importer.failures import gone_database
from app.importer.places import Finder, Places, StoredAddresses, read_addresses
from app.importer.preparing import PreparedVideo
from app.importer.report import Kind
from app.importer.writing import write_video
from app.importer.written import Written
from app.repositories import VideoRepository

_T = TypeVar("_T")

# What somebody else did at the same moment does not stand in the way a second time. The last pause is long enough for
# a PostgreSQL that restarts.
_PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0)


class _CopyGone(Exception):
    """Somebody deleted the video while its files were copied."""

    def __init__(self) -> None:
        super().__init__("its files were deleted while they were copied")


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """What the writers of an import share: `dry_run` rolls every video back, and no `copier` copies nothing."""

    settings: Settings
    finder: Finder
    dry_run: bool
    bucket: str | None
    known: KnownConfigs
    copier: Copier | None


class Writer:
    """One of the writers of an import. Give its connection back with `aclose`."""

    def __init__(self, options: WriterOptions) -> None:
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self._conn: Connection | None = None

    async def aclose(self) -> None:
        self._conn = None
        await self._stack.aclose()

    async def write(self, prepared: PreparedVideo) -> Written:
        """Write a video; where files are copied, its files first.

        Raises `DatabaseUnavailable` where no other video can be written either, and what `Copier.copy` raises.
        """
        stored = await self._repeat(prepared, lambda conn: read_addresses(conn, prepared.identifier))
        for _ in _PAUSES_SECONDS:
            places = await self._place(prepared, stored)
            with contextlib.suppress(_CopyGone):
                return await self._repeat(prepared, partial(self._write, prepared=prepared, places=places))
        raise _CopyGone

    async def _place(self, prepared: PreparedVideo, stored: StoredAddresses) -> Places:
        if self._options.copier is None:
            return await self._options.finder.find(prepared, stored, is_copying=False)
        return await self._options.copier.copy(prepared, stored)

    async def _write(self, conn: Connection, prepared: PreparedVideo, places: Places) -> Written:
        options = self._options
        async with conn.transaction(force_rollback=options.dry_run):
            # A long transcript is one statement, and no client waits for its answer.
            await conn.execute("SELECT set_config('statement_timeout', '0', true)")
            if options.copier is not None:
                # As deletions do: one that looks which files no row names waits until these rows name theirs.
                await VideoRepository(conn).lock_identifier(prepared.identifier)
                if not await options.copier.has_all(places):
                    raise _CopyGone
            written = await write_video(conn, prepared, places, options.bucket, options.known)
        written.in_place = places.count_in_place(prepared)
        options.known.learn(written.configs, is_stored=not options.dry_run)
        return written

    async def _repeat(self, prepared: PreparedVideo, action: Callable[[Connection], Awaitable[_T]]) -> _T:
        for pause in _PAUSES_SECONDS:
            try:
                return await self._try(action)
            except psycopg.errors.ProgramLimitExceeded as error:
                _leave_out_transcript(prepared, error)
            except (psycopg.Error, DatabaseUnavailable) as error:
                if not self._may_help_to_try_again(error):
                    raise
                await asyncio.sleep(pause)
        return await self._try(action)

    async def _try(self, action: Callable[[Connection], Awaitable[_T]]) -> _T:
        conn = await self._connection()
        try:
            return await action(conn)
        except psycopg.Error as error:
            if is_session_lost(error):
                await self.aclose()
            if gone := gone_database(error):
                raise gone from error
            raise

    async def _connection(self) -> Connection:
        if self._conn is None or self._conn.closed:
            await self.aclose()
            self._stack = contextlib.AsyncExitStack()
            settings = self._options.settings
            try:
                self._conn = await self._stack.enter_async_context(connect(settings))
            except psycopg.OperationalError as error:
                raise connection_error(error, settings.database_parameters) from error
        return self._conn

    def _may_help_to_try_again(self, error: Exception) -> bool:
        if isinstance(error, psycopg.errors.ForeignKeyViolation):
            self._options.known.forget()
            return True
        return isinstance(error, DatabaseUnavailable | psycopg.OperationalError | psycopg.errors.UniqueViolation)


def _leave_out_transcript(prepared: PreparedVideo, error: psycopg.Error) -> None:
    """A text may have too many words for PostgreSQL's text search; the rest of its video need not wait for it."""
    if prepared.transcript is None:
        raise error
    reason = f"the transcript is too long: {error.diag.message_primary}"
    prepared.notes.about(prepared.transcript_file).add(Kind.REFUSED, reason, prepared.transcript.to_json())
    prepared.transcript = None
