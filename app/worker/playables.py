"""Makes copies that browsers play of the videos whose own files they do not play, one at a time."""

import asyncio
import logging
import secrets
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
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
from app.repositories.media import VideoFileRepository
from app.storage import Storage, check_free_space, playable_folder_key
from app.worker.timings import WorkerTimings

T = TypeVar("T")

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
_PAUSE_SECONDS = 600.0  # before a file is looked at again that is missing, or whose storage does not answer
_MAKING_ATTEMPTS = 8  # to make and store a copy, each after twice the pause before: a day altogether
_FOLDER = "playable"
_makers = ThreadPool("playable", 1)


class _CopyNotWritten(Exception):
    """A copy that could not be made or stored for a reason that may pass; the text says which."""


class PlayableMaker:
    """Looks at the file of each video once. Any number of workers share the work: PostgreSQL says whose a file is."""

    def __init__(
        self, settings: Settings, database: Database, storage: Storage, name: str, timings: WorkerTimings
    ) -> None:
        self._root = settings.data_dir / _FOLDER
        self._max_hours = settings.max_video_hours
        self._database = database
        self._storage = storage
        self._name = name
        self._timings = timings

    async def make_waiting(self) -> None:
        """Claim one file after the other until none waits. Raises `DatabaseUnavailable` and `psycopg.Error`."""
        while file := await self._claim():
            try:
                await self._handle(file)
            except RunLost:
                _log.info("The playable copy of %r is left: the video was deleted or has another file", file.video)
            except BaseException:
                await self._put_back(file, 0)
                raise

    async def _claim(self) -> ClaimedVideoFile | None:
        reason = f"The worker died {_ATTEMPTS} times while it made a playable copy"
        async with self._database.connect() as conn:
            files = VideoFileRepository(conn)
            for video in await files.fail_abandoned_files(self._timings.stalled_after, _ATTEMPTS, reason):
                _log.warning("No playable copy of %r: %s", video, reason)
            return await files.claim_next_file(self._name, self._timings.stalled_after, _ATTEMPTS)

    async def _handle(self, file: ClaimedVideoFile) -> None:
        try:
            await self._make(file)
        except _CopyNotWritten as error:
            await self._postpone(file, str(error))
        except (FileMissing, StorageUnavailable, OSError) as error:
            _log.info("The playable copy of %r waits: %s", file.video, error)
            await self._put_back(file, _PAUSE_SECONDS)
        except StageFailed as failure:
            if isinstance(failure, RunLost):
                raise
            _log.warning("No playable copy of %r: %s", file.video, failure)
            await self._finish(file, PlayableCopyStatus.FAILED, reason=str(failure))
        except (psycopg.Error, DatabaseUnavailable):
            raise
        except Exception:  # whatever it is, it is this file's, and the next one is not kept from its turn
            _log.exception("No playable copy of %r", file.video)
            await self._finish(file, PlayableCopyStatus.FAILED, reason="No playable copy can be made")

    async def _postpone(self, file: ClaimedVideoFile, problem: str) -> None:
        """Leave the copy to a later attempt, after a longer pause each time, and give it up in the end."""
        failures = file.failures + 1
        if failures < _MAKING_ATTEMPTS:
            _log.warning("The playable copy of %r cannot be written, and waits: %s", file.video, problem)
            await self._put_back(replace(file, failures=failures), _PAUSE_SECONDS * 2**file.failures)
            return
        _log.warning("No playable copy of %r after %d attempts: %s", file.video, failures, problem)
        await self._finish(file, PlayableCopyStatus.FAILED, reason=f"The playable copy cannot be written: {problem}")

    async def _make(self, file: ClaimedVideoFile) -> None:
        copy = await self._run(
            file, PlayableCopyStatus.INSPECTING, partial(_plan, self._storage, file, self._max_hours)
        )
        if copy is None:
            await self._finish_with_copy(file, PlayableCopyStatus.UNNEEDED, None)
            return
        await self._remove_leftovers(file)
        try:
            await self._write(file, copy)
        except FileMissing:
            raise
        except (StorageUnavailable, StorageFull) as error:
            raise _CopyNotWritten(str(error)) from error
        except OSError as error:
            raise _CopyNotWritten(error.strerror or str(error)) from error

    async def _write(self, file: ClaimedVideoFile, copy: PlayableCopyPlan) -> None:
        folder = self._root / f"{file.video_id}-{secrets.token_hex(8)}"
        try:
            await asyncio.to_thread(folder.mkdir, parents=True)
            target = folder / f"copy{copy.extension}"
            size = (await self._storage.stat(file.source_url)).size
            await asyncio.to_thread(check_free_space, folder, size, "the playable copy")
            await self._run(
                file, PlayableCopyStatus.MAKING, partial(_make, self._storage, file.source_url, copy, target)
            )
            await self._store(file, target)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _remove_leftovers(self, file: ClaimedVideoFile) -> None:
        """Remove what workers that died have left: of this file, and of those that no worker has claimed."""
        folders = await asyncio.to_thread(self._list_folders)
        async with self._database.connect() as conn:  # read later: of a copy that was begun since, none is found
            kept = {
                str(video_id) for video_id in await VideoFileRepository(conn).list_claimed_video_ids() - {file.video_id}
            }
        for folder in folders:
            if folder.name.partition("-")[0] not in kept:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _list_folders(self) -> list[Path]:
        return list(self._root.iterdir()) if self._root.is_dir() else []

    async def _store(self, file: ClaimedVideoFile, made: Path) -> None:
        key = f"{playable_folder_key(file.video)}/{secrets.token_hex(8)}{made.suffix}"
        heartbeat_task = asyncio.create_task(self._send_heartbeats(file, PlayableCopyStatus.MAKING))
        try:
            stored = await self._storage.put(key, made)
        finally:
            heartbeat_task.cancel()
        try:
            await self._finish_with_copy(file, PlayableCopyStatus.READY, stored.url)
        except RunLost:
            await self._storage.delete(stored.url)
            raise
        _log.info("Made a playable copy of %r: %s", file.video, stored.url)

    async def _run(self, file: ClaimedVideoFile, status: PlayableCopyStatus, work: Callable[[threading.Event], T]) -> T:
        """Do blocking work in a thread, with heartbeats beside it; it ends where the file is lost. Raises `RunLost`."""
        stopping = threading.Event()
        working = asyncio.create_task(_makers.run_shielded(partial(work, stopping), on_cancel=stopping.set))
        heartbeat_task = asyncio.create_task(self._send_heartbeats(file, status))
        try:
            await asyncio.wait({working, heartbeat_task}, return_when=asyncio.FIRST_COMPLETED)
            if heartbeat_task.done():
                heartbeat_task.result()
            return await working
        finally:
            for task in (working, heartbeat_task):
                task.cancel()
            await asyncio.gather(working, heartbeat_task, return_exceptions=True)

    async def _send_heartbeats(self, file: ClaimedVideoFile, status: PlayableCopyStatus) -> None:
        """Raises `RunLost` once the file is not this worker's any more."""
        while True:
            with suppress(psycopg.Error, DatabaseUnavailable):
                async with self._database.connect() as conn:
                    await VideoFileRepository(conn).store_heartbeat(file, status)
            await asyncio.sleep(self._timings.heartbeat_interval)

    async def _finish(
        self, file: ClaimedVideoFile, status: PlayableCopyStatus, url: str | None = None, reason: str | None = None
    ) -> None:
        async with self._database.connect() as conn:
            await VideoFileRepository(conn).finish_file(file, status, url, escape_controls(reason) if reason else None)

    async def _put_back(self, file: ClaimedVideoFile, pause_seconds: float) -> None:
        with suppress(psycopg.Error, DatabaseUnavailable):
            async with self._database.connect() as conn:
                await VideoFileRepository(conn).release_file(file, pause_seconds)

    async def _finish_with_copy(self, file: ClaimedVideoFile, status: PlayableCopyStatus, url: str | None) -> None:
        """Store the copy at `url`, and delete those of other files that the video had and of workers that died.

        They are listed first: as long as the file is this worker's, no other one has stored a copy that is to stay.
        """
        copies: list[str] = []
        with suppress(StorageUnavailable):
            copies = [stored.url for stored in await self._storage.list_files(playable_folder_key(file.video))]
        await self._finish(file, status, url)
        with suppress(StorageUnavailable):
            for copy_url in copies:
                if copy_url != url:
                    await self._storage.delete(copy_url)


def _plan(
    storage: Storage, file: ClaimedVideoFile, max_hours: float, stopping: threading.Event
) -> PlayableCopyPlan | None:
    with storage.open_blocking(file.source_url) as video:
        return plan_playable_copy(video, stopping, file.declares_more, max_hours)


def _make(storage: Storage, url: str, copy: PlayableCopyPlan, target: Path, stopping: threading.Event) -> None:
    try:
        with storage.open_blocking(url) as video:
            make_playable_copy(video, copy, target, stopping)
    except ProcessingStopped:
        raise RunLost from None
