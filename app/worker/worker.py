"""A worker: it hears of runs, takes those that wait, and looks for those that nobody was told of."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import compress

import psycopg
from redis.asyncio import Redis
from taskiq.receiver import Receiver

from app.ai.protocols import Models
from app.core.config import Settings
from app.core.doorbell import RUN_TASK, Doorbell
from app.core.errors import VideoMomentsError
from app.core.logging import request_id
from app.database import Database
from app.models.run import ClaimedRun
from app.models.stages import Stage
from app.pipeline.context import RunContext
from app.pipeline.outages import find_outage
from app.pipeline.pace import USUAL_PACE, Pace
from app.pipeline.stage_code import StageCode, load_stages
from app.repositories.live_runs import LiveRuns
from app.repositories.work import WorkRepository
from app.storage import Storage
from app.worker.attempt import Attempt, Stop
from app.worker.callbacks import send_due_callbacks
from app.worker.folders import RunFolders
from app.worker.playables import PlayableMaker

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
_NAME_LENGTH = 100  # of `pipeline.runs.owner`
_RESTART_SECONDS = 5.0
_RUNG_AT_ONCE = 10
_TIDY_SECONDS = 600.0  # between two looks for folders that nobody needs
_PATIENCE_SECONDS = 3.0  # with Redis: two transcriptions on this machine may keep the loop waiting for seconds


class Worker:
    """Does up to `pipeline_concurrency` runs at once between `start` and `stop`. There may be any number of workers."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        redis: Redis,
        storage: Storage,
        models: Models,
        codes: Mapping[Stage, StageCode] | None = None,
        pace: Pace = USUAL_PACE,
    ) -> None:
        self._settings = settings
        self._database = database
        self._live = LiveRuns(redis, _PATIENCE_SECONDS)
        self._storage = storage
        self._models = models
        self._codes = codes
        self._pace = pace
        self._folders = RunFolders(settings)
        self.name = f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"[:_NAME_LENGTH]
        self._doorbell = Doorbell(settings)
        self._doorbell.register_task(self._task(), task_name=RUN_TASK)
        self._doorbell.is_worker_process = True
        self._places = asyncio.Semaphore(settings.pipeline_concurrency)
        self._attempts: dict[tuple[str, str], Attempt] = {}  # by run and token
        self._playables = PlayableMaker(settings, database, storage, self.name, pace)
        self._tidy_until = 0.0
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._repeating: list[asyncio.Task[None]] = []
        self._taking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to work in tasks of its own; servers that are away are waited for."""
        if self._codes is None:
            self._codes = await asyncio.to_thread(load_stages)
        self._repeating = [
            asyncio.create_task(self._repeat(self._sweep)),
            asyncio.create_task(self._repeat(self._send_callbacks)),
            asyncio.create_task(self._repeat(self._playables.make_waiting)),
        ]
        self._tasks = [asyncio.create_task(self._listen()), *self._repeating]
        _log.info("Worker %s takes %d runs at once", self.name, self._settings.pipeline_concurrency)

    async def stop(self) -> None:
        """Take no more, and give back what is not done: another worker goes on with it at the same stage."""
        self._stopping.set()
        self._doorbell.stop_listening()
        for attempt in self._attempts.values():
            attempt.stop(Stop.RELEASED)
        for task in self._repeating:
            task.cancel()
        if tasks := {*self._tasks, *self._taking}:
            _, late = await asyncio.wait(tasks, timeout=self._pace.grace + 1)
            for task in late:
                task.cancel()
        await self._doorbell.shutdown()

    async def take(self, identifier: str) -> None:
        """Work on a run if it waits for somebody. It never fails: what was heard of it is acknowledged afterwards."""
        await self._places.acquire()
        await self._take_in_place(identifier)

    async def _take_in_place(self, identifier: str) -> None:
        """Take a run with a place that is held for it, and free the place."""
        try:
            await self._take(identifier)
        finally:
            self._places.release()

    async def _take(self, identifier: str) -> None:
        token = f"{self.name}:{secrets.token_hex(4)}"
        request_id.set(identifier)
        if self._stopping.is_set():
            await self._doorbell.ring(identifier)
            return
        if not await self._live.take_lease(identifier, token, self._pace.lease):
            return
        try:
            run = await self._claim(identifier)
            if run is not None:
                await self._work_on(run, token)
        except (psycopg.Error, VideoMomentsError) as error:
            _log.warning("Run %s waits for another try: %s", identifier, find_outage(error) or error)
        except Exception:
            _log.exception("Run %s waits for another try", identifier)
        finally:
            await self._live.free_lease(identifier, token)
        if self._stopping.is_set():
            await self._doorbell.ring(identifier)

    def _task(self) -> Callable[[str], Awaitable[None]]:
        async def take(identifier: str = "") -> None:  # taskiq renames what it is given; a method cannot be renamed
            if identifier:
                await self.take(identifier)
            else:
                _log.info("Skipped an entry that names no run")

        return take

    async def _claim(self, identifier: str) -> ClaimedRun | None:
        async with self._database.connect() as conn:
            return await WorkRepository(conn).claim(identifier, self.name, self._pace.stale)

    async def _work_on(self, run: ClaimedRun, token: str) -> None:
        folder = self._folders.get(run.identifier)
        context = RunContext(run, self._settings, self._database, self._storage, self._models, folder)
        attempt = Attempt(context, self._live, self._codes or {}, self._pace, token)
        self._attempts[run.identifier, token] = attempt
        try:
            if self._stopping.is_set():
                attempt.stop(Stop.RELEASED)
            has_ended = await (attempt.give_up(_ATTEMPTS) if run.attempt > _ATTEMPTS else attempt.carry_out())
        finally:
            del self._attempts[run.identifier, token]
        if has_ended:
            await self._folders.remove(run.identifier)
        elif not self._stopping.is_set():  # another worker has it, who needs its folder, or its video was deleted
            await self._tidy()

    async def _listen(self) -> None:
        while not self._stopping.is_set():
            receiver = Receiver(self._doorbell, max_async_tasks=self._settings.pipeline_concurrency, run_startup=False)
            try:
                await receiver.listen(self._stopping)
            except Exception:
                _log.exception("The worker hears of no runs, trying again")
                await asyncio.sleep(_RESTART_SECONDS)

    async def _repeat(self, do: Callable[[], Awaitable[None]]) -> None:
        is_away = False
        while not self._stopping.is_set():
            try:
                if is_away:
                    await self._wait_for_others()
                await do()
                is_away = False
            except (psycopg.Error, VideoMomentsError) as error:
                if not is_away:
                    _log.warning("The worker waits: %s", find_outage(error) or error)
                is_away = True
            except Exception:
                _log.exception("The worker goes on after an error")
            await asyncio.sleep(self._pace.sweep)

    async def _wait_for_others(self) -> None:
        """After an outage, give those who live time to say so before their runs look left."""
        async with self._database.connect():
            pass
        await asyncio.sleep(self._pace.heartbeat)

    async def _tidy(self) -> None:
        await self._folders.remove_leftovers(self._database, [identifier for identifier, _ in self._attempts])

    async def _sweep(self) -> None:
        if time.monotonic() >= self._tidy_until:
            await self._tidy()
            self._tidy_until = time.monotonic() + _TIDY_SECONDS
        async with self._database.connect() as conn:
            work = WorkRepository(conn)
            waiting = await work.pick_waiting(self._pace.stale, self._pace.ring_again)
            orphans = await work.end_orphans()
        for orphan in orphans:
            _log.warning("Run %s was ended: nobody knows what it was asked for", orphan.identifier)
        await self._take_unheard(await self._ring(waiting))

    async def _ring(self, waiting: Sequence[str]) -> Sequence[str]:
        """Ring for runs and return those that no worker can be told of."""
        unheard: list[str] = []
        for first in range(0, len(waiting), _RUNG_AT_ONCE):
            some = waiting[first : first + _RUNG_AT_ONCE]
            are_heard = await asyncio.gather(*map(self._doorbell.ring, some))
            if not any(are_heard):  # Redis is away, and nobody hears of the others either
                return [*unheard, *waiting[first:]]
            unheard += compress(some, (not is_heard for is_heard in are_heard))
        return unheard if self._doorbell.is_reading else waiting

    async def _take_unheard(self, runs: Sequence[str]) -> None:
        """Take as many of the runs as there are free places; the others are looked for again."""
        for identifier in runs:
            if self._places.locked() or self._stopping.is_set():
                return
            await self._places.acquire()
            task = asyncio.create_task(self._take_in_place(identifier))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _send_callbacks(self) -> None:
        await send_due_callbacks(self._database, self._settings)
