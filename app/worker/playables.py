"""Playable copies of the video files that browsers do not play, made one at a time."""

import asyncio
import logging
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable, FileMissing, RunLost, StageFailed, StorageFull, StorageUnavailable
from app.core.text import escape_controls
from app.core.thread_pool import ThreadPool
from app.database import Database
from app.media.container import ProcessingStopped
from app.media.playable_copy import PlayableCopyPlan, make_playable_copy, plan_playable_copy
from app.models.videos import ClaimedVideoFile, PlayableCopyStatus
from app.repositories.media import PlayableCopyRepository
from app.storage import Storage, check_free_space, playable_folder_key
from app.worker.timings import WorkerTimings

T = TypeVar("T")

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
_PAUSE_SECONDS = 600.0  # before a file is looked at again that is missing, or whose storage does not answer
_MAKING_ATTEMPTS = 8  # to make and store a copy, each after twice the pause before: a day altogether
_FOLDER = "playable"
_makers = ThreadPool("playable", 1)


class _CopyWriteFailed(Exception):
    """A copy that could not be made or stored, for a reason that may pass, which is the text."""


class PlayableCopyMaker:
    """Inspects the file of each video once, and makes its playable copy if it needs one. Workers share the files."""

    def __init__(
        self, settings: Settings, database: Database, storage: Storage, name: str, timings: WorkerTimings
    ) -> None:
        self._root = settings.data_dir / _FOLDER
        self._max_hours = settings.max_video_hours
        self._database = database
        self._storage = storage
        self._name = name
        self._timings = timings

    async def process_waiting_files(self) -> None:
        """Process one waiting file after the other. Raises `DatabaseUnavailable` and `psycopg.Error`."""
        while file := await self._claim_video_file():
            try:
                await self._make_copy_or_record_failure(file)
            except RunLost:
                _log.info("The playable copy of %r is left: the video was deleted or has another file", file.video)
            except BaseException:
                await self._release_file(file, 0)
                raise

    async def _claim_video_file(self) -> ClaimedVideoFile | None:
        reason = f"The worker died {_ATTEMPTS} times while it made a playable copy"
        async with self._database.connect() as conn:
            files = PlayableCopyRepository(conn)
            for video in await files.fail_abandoned_files(self._timings.stalled_after, _ATTEMPTS, reason):
                _log.warning("No playable copy of %r: %s", video, reason)
            return await files.claim_next_video_file(self._name, self._timings.stalled_after, _ATTEMPTS)

    async def _make_copy_or_record_failure(self, file: ClaimedVideoFile) -> None:
        try:
            await self._make_copy_if_needed(file)
        except _CopyWriteFailed as error:
            await self._postpone_or_fail(file, str(error))
        except (FileMissing, StorageUnavailable, OSError) as error:
            _log.info("The playable copy of %r waits: %s", file.video, error)
            await self._release_file(file, _PAUSE_SECONDS)
        except StageFailed as failure:
            if isinstance(failure, RunLost):
                raise
            _log.warning("No playable copy of %r: %s", file.video, failure)
            await self._store_file_status(file, PlayableCopyStatus.FAILED, reason=str(failure))
        except (psycopg.Error, DatabaseUnavailable):
            raise
        except Exception:  # whatever it is, it is this file's, and the next one is not kept from its turn
            _log.exception("No playable copy of %r", file.video)
            await self._store_file_status(file, PlayableCopyStatus.FAILED, reason="No playable copy can be made")

    async def _postpone_or_fail(self, file: ClaimedVideoFile, problem: str) -> None:
        """Release the file until the next attempt, twice as late each time; after eight, mark it as failed."""
        failures = file.failures + 1
        if failures < _MAKING_ATTEMPTS:
            _log.warning("The playable copy of %r cannot be written, and waits: %s", file.video, problem)
            await self._release_file(replace(file, failures=failures), _PAUSE_SECONDS * 2**file.failures)
            return
        _log.warning("No playable copy of %r after %d attempts: %s", file.video, failures, problem)
        await self._store_file_status(
            file, PlayableCopyStatus.FAILED, reason=f"The playable copy cannot be written: {problem}"
        )

    async def _make_copy_if_needed(self, file: ClaimedVideoFile) -> None:
        copy_plan = await self._run_with_heartbeats(
            file,
            PlayableCopyStatus.INSPECTING,
            partial(_plan_playable_copy_of_stored_file, self._storage, file, self._max_hours),
        )
        if copy_plan is None:
            await self._replace_stored_copies(file, PlayableCopyStatus.UNNEEDED, None)
            return
        await self._remove_abandoned_folders(file)
        try:
            await self._make_and_store_copy(file, copy_plan)
        except FileMissing:
            raise
        except (StorageUnavailable, StorageFull) as error:
            raise _CopyWriteFailed(str(error)) from error
        except OSError as error:
            raise _CopyWriteFailed(error.strerror or str(error)) from error

    async def _make_and_store_copy(self, file: ClaimedVideoFile, copy_plan: PlayableCopyPlan) -> None:
        folder = self._root / f"{file.video_id}-{secrets.token_hex(8)}"
        try:
            await asyncio.to_thread(folder.mkdir, parents=True)
            target = folder / f"copy{copy_plan.extension}"
            size = (await self._storage.stat(file.source_url)).size
            await asyncio.to_thread(check_free_space, folder, size, "the playable copy")
            making = partial(_make_playable_copy_of_stored_file, self._storage, file.source_url, copy_plan, target)
            await self._run_with_heartbeats(file, PlayableCopyStatus.MAKING, making)
            await self._store_copy(file, target)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _remove_abandoned_folders(self, file: ClaimedVideoFile) -> None:
        folders = await asyncio.to_thread(lambda: list(self._root.glob("*")))
        async with self._database.connect() as conn:  # after the folders: of a copy that began since, none is listed
            claimed_video_ids = await PlayableCopyRepository(conn).list_claimed_video_ids() - {file.video_id}
        kept = set(map(str, claimed_video_ids))
        for folder in folders:
            if folder.name.partition("-")[0] not in kept:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _store_copy(self, file: ClaimedVideoFile, local_copy: Path) -> None:
        key = f"{playable_folder_key(file.video)}/{secrets.token_hex(8)}{local_copy.suffix}"
        async with self._heartbeats_meanwhile(file, PlayableCopyStatus.MAKING):
            stored = await self._storage.put(key, local_copy)
        try:
            await self._replace_stored_copies(file, PlayableCopyStatus.READY, stored.url)
        except RunLost:
            await self._storage.delete(stored.url)
            raise
        _log.info("Made a playable copy of %r: %s", file.video, stored.url)

    async def _run_with_heartbeats(
        self, file: ClaimedVideoFile, status: PlayableCopyStatus, blocking_call: Callable[[threading.Event], T]
    ) -> T:
        """Run a call in a thread, with heartbeats meanwhile. Raises `RunLost` where the claim of the file is lost."""
        stopping = threading.Event()
        working = asyncio.create_task(_makers.run_shielded(partial(blocking_call, stopping), on_cancel=stopping.set))
        async with self._heartbeats_meanwhile(file, status) as heartbeats:
            try:
                await asyncio.wait({working, heartbeats}, return_when=asyncio.FIRST_COMPLETED)
                if heartbeats.done():
                    heartbeats.result()
                return await working
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                del working, heartbeats  # a failure refers to this frame: its tasks, and what they opened, would stay

    @asynccontextmanager
    async def _heartbeats_meanwhile(
        self, file: ClaimedVideoFile, status: PlayableCopyStatus
    ) -> AsyncIterator["asyncio.Task[None]"]:
        """Send heartbeats until the block ends, and wait until the last one has let go of its connection."""
        heartbeats = asyncio.create_task(self._send_file_heartbeats(file, status))
        try:
            yield heartbeats
        finally:
            heartbeats.cancel()
            await asyncio.gather(heartbeats, return_exceptions=True)
            del heartbeats

    async def _send_file_heartbeats(self, file: ClaimedVideoFile, status: PlayableCopyStatus) -> None:
        while True:
            with suppress(psycopg.Error, DatabaseUnavailable):
                async with self._database.connect() as conn:
                    await PlayableCopyRepository(conn).store_status_and_heartbeat(file, status)
            await asyncio.sleep(self._timings.heartbeat_interval)

    async def _store_file_status(
        self, file: ClaimedVideoFile, status: PlayableCopyStatus, url: str | None = None, reason: str | None = None
    ) -> None:
        async with self._database.connect() as conn:
            await PlayableCopyRepository(conn).finish_claimed_file(
                file, status, url, escape_controls(reason) if reason else None
            )

    async def _release_file(self, file: ClaimedVideoFile, pause_seconds: float) -> None:
        with suppress(psycopg.Error, DatabaseUnavailable):
            async with self._database.connect() as conn:
                await PlayableCopyRepository(conn).return_file_to_queue(file, pause_seconds)

    async def _replace_stored_copies(self, file: ClaimedVideoFile, status: PlayableCopyStatus, url: str | None) -> None:
        """Store the status with the copy's URL, if any, and delete all other stored copies of the video."""
        copies: list[str] = []  # listed while the claim holds, so that no other worker's later copy is among them
        with suppress(StorageUnavailable):
            copies = [stored.url for stored in await self._storage.list_files(playable_folder_key(file.video))]
        await self._store_file_status(file, status, url)
        with suppress(StorageUnavailable):
            for copy_url in copies:
                if copy_url != url:
                    await self._storage.delete(copy_url)


def _plan_playable_copy_of_stored_file(
    storage: Storage, file: ClaimedVideoFile, max_hours: float, stopping: threading.Event
) -> PlayableCopyPlan | None:
    with storage.open_blocking(file.source_url) as video:
        return plan_playable_copy(video, stopping, file.declares_more, max_hours)


def _make_playable_copy_of_stored_file(
    storage: Storage, url: str, copy_plan: PlayableCopyPlan, target: Path, stopping: threading.Event
) -> None:
    try:
        with storage.open_blocking(url) as video:
            make_playable_copy(video, copy_plan, target, stopping)
    except ProcessingStopped:
        raise RunLost from None
