"""A worker: it receives messages of stages that wait, claims them in PostgreSQL, and executes them."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from redis.asyncio import Redis

from app.ai.models import open_models
from app.ai.protocols import Models
from app.core.config import Settings
from app.core.errors import VideoMomentsError
from app.core.logging import request_id
from app.database import Database
from app.models.runs import ClaimedRun, RunStatus
from app.models.stages import STAGE_TABLE, RunType, Stage, WorkKind
from app.pipeline.context import LoadedStage, RunContext, load_stages
from app.pipeline.failures import find_outage
from app.repositories.stage_queue import StageQueueRepository
from app.resources import Resources
from app.services.live_runs import LiveStatusStore
from app.services.queue import StageNotifier
from app.storage import Storage
from app.worker.callbacks import send_due_callbacks
from app.worker.execution import Executed, StageExecution, Stop
from app.worker.folders import RunFolders
from app.worker.heartbeats import Heartbeats
from app.worker.intake import Intake
from app.worker.monitor import QueueMonitor
from app.worker.periodic import PeriodicTasks
from app.worker.playables import PlayableMaker
from app.worker.receiver import StageReceiver
from app.worker.timings import DEFAULT_TIMINGS, WorkerTimings

_log = logging.getLogger(__name__)

_NAME_LENGTH = 100  # of `pipeline.runs.owner`
_CANCEL_SECONDS = 6.0  # for what is cancelled to end
_PATIENCE_SECONDS = 3.0  # with Redis: two transcriptions on this machine may keep the loop waiting for seconds


class Worker:
    """Executes up to `pipeline_concurrency` stages at once between `start` and `stop`, of the kinds that it serves.

    There may be any number of workers: PostgreSQL says which of them owns a stage.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        redis: Redis,
        storage: Storage,
        models: Models,
        kinds: Collection[WorkKind] = tuple(WorkKind),
        stages: Mapping[Stage, LoadedStage] | None = None,
        timings: WorkerTimings = DEFAULT_TIMINGS,
    ) -> None:
        self.name = f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"[:_NAME_LENGTH]
        self._settings = settings
        self._database = database
        self._storage = storage
        self._models = models
        self._kinds = tuple(kinds)
        self._stages = stages
        self._timings = timings
        self._live = LiveStatusStore(redis, _PATIENCE_SECONDS)
        self._folders = RunFolders(settings)
        self._notifier = StageNotifier(settings)
        self._intake = Intake(settings, database, redis, storage, self._notifier.notify)
        self._receiver = StageReceiver(settings, self._kinds, self.name, self.run_stage)
        self._limits = {
            stage: getattr(settings, row.limit_setting) for stage, row in STAGE_TABLE.items() if row.limit_setting
        }
        self._monitor = QueueMonitor(
            database, self._notifier, self._receiver, self._kinds, self._run_if_free, self._limits, timings
        )
        self._heartbeats = Heartbeats(database, self._live, self.name, timings)
        self._playables = PlayableMaker(settings, database, storage, self.name, timings)
        self._periodic = PeriodicTasks()
        self._capacity = asyncio.Semaphore(settings.pipeline_concurrency)
        self._stopping = asyncio.Event()
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._intake_task: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to work in tasks of its own; servers that are away are waited for."""
        if self._stages is None:
            self._stages = await asyncio.to_thread(load_stages, self._kinds)
        self._heartbeat_task = asyncio.create_task(self._heartbeats.run())
        timings = self._timings
        self._monitor.start()
        self._periodic.add("queue", timings.poll_interval, self._monitor.poll)
        self._periodic.add("callbacks", timings.poll_interval, self._send_callbacks)
        self._periodic.add("leftovers", timings.cleaning_interval, self._clean)
        if WorkKind.CLIPS in self._kinds:
            self._periodic.add("playable copies", timings.poll_interval, self._playables.make_waiting)
        self._intake_task = asyncio.create_task(self._intake.run())
        self._periodic.start()
        self._receiver.start(self._settings.pipeline_concurrency)
        _log.info(
            "Worker %s executes %d stages at once: %s",
            self.name,
            self._settings.pipeline_concurrency,
            ", ".join(self._kinds),
        )

    async def stop(self) -> None:
        """Claim no more, and release what is not done: another worker goes on with it at the same stage."""
        self._stopping.set()
        grace = self._timings.drain_timeout + self._timings.shutdown_timeout + 1
        stops = {
            asyncio.create_task(self._heartbeats.drain(), name="heartbeats"),
            asyncio.create_task(self._periodic.stop(grace), name="periodic work"),
            asyncio.create_task(_cancel(self._intake_task), name="intake"),
            asyncio.create_task(self._receiver.stop(), name="receiver"),
            asyncio.create_task(self._wait_for_running(grace), name="stages"),
        }
        _, late = await asyncio.wait(stops, timeout=grace + 1)
        for task in late:
            _log.warning("The worker ends without its %s, which does not stop", task.get_name())
            task.cancel()
        await _cancel(self._heartbeat_task)  # the last of all: what is being released is still this worker's
        await self._notifier.aclose()

    async def _wait_for_running(self, grace: float) -> None:
        """Wait for the stages under way, also those whose receiver has lost its connection."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()

    async def run_stage(self, identifier: str, stage: Stage) -> bool:
        """Execute a stage if it waits for a worker, and those after it that stay here. It never raises: False where one
        of them has failed."""
        has_failed = False
        with self._noted_as_running(), _log_lines_of(identifier):
            try:
                async with self._capacity:
                    run = None if self._stopping.is_set() else await self._claim(identifier, stage)
                    while run is not None:
                        stage, execution = run.stage, self._make_execution(run)
                        with self._heartbeats.maintain_claim(execution):
                            executed = await execution.execute()
                        await self._publish_stage_end(execution, executed)
                        run = executed.kept
                        has_failed = executed.outcome is not None and executed.outcome.status is RunStatus.FAILED
            except (psycopg.Error, VideoMomentsError) as error:
                has_failed = True
                _log.warning("Run %s waits for another try: %s", identifier, find_outage(error) or error)
            except Exception:
                has_failed = True
                _log.exception("Run %s waits for another try", identifier)
            if self._stopping.is_set():
                await self._notifier.notify(identifier, stage)
        return not has_failed

    @contextmanager
    def _noted_as_running(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    async def _claim(self, identifier: str, stage: Stage) -> ClaimedRun | None:
        """Claim a stage, unless this worker has it: its heartbeats look late after the machine has slept, too."""
        if self._heartbeats.has(identifier, stage):
            return None
        async with self._database.connect() as conn:
            queue = StageQueueRepository(conn)
            return await queue.claim_stage(
                identifier, stage, self.name, self._monitor.stalled_after, self._limits.get(stage)
            )

    def _make_execution(self, run: ClaimedRun) -> StageExecution:
        folder = self._folders.get(run.identifier)
        context = RunContext(run, self._settings, self._database, self._storage, self._models, folder)
        execution = StageExecution(context, (self._stages or {})[run.stage], self._timings)
        if self._stopping.is_set():
            execution.stop(Stop.RELEASED)
        return execution

    async def _publish_stage_end(self, execution: StageExecution, executed: Executed) -> None:
        """Publish the status after a stage and notify workers of the next one; a poll finds lost messages."""
        run = execution.context.run
        if executed.outcome is not None:
            await self._live.write_ended_status(run.identifier, run.video, execution.write_live(executed.outcome))
            await self._folders.remove(run.identifier)
        elif executed.next_stage is not None and executed.kept is None:
            video = run.video if run.type is RunType.FULL else None
            await self._live.write_active_status(run.identifier, execution.write_live(), video, is_waiting=True)
            if STAGE_TABLE[executed.next_stage].kind not in self._kinds:
                await self._folders.remove(run.identifier)  # another machine goes on, with what is stored
            await self._notify(run.identifier, executed.next_stage)
        elif executed.kept is None and not self._stopping.is_set():  # another worker here needs its folder, or none
            await self._remove_folders()
        if run.stage in self._limits:
            await self._notify_next(run.stage)

    async def _notify_next(self, stage: Stage) -> None:
        """Notify the workers of a run that waits because of a limit: there is room for one more at the stage."""
        try:
            async with self._database.connect() as conn:
                waiting = await StageQueueRepository(conn).take_next_waiting_stage(stage, self._monitor.stalled_after)
        except (psycopg.Error, VideoMomentsError) as error:
            _log.debug("A run that waits at stage %s is found by the next poll: %s", stage, error)
        else:
            if waiting is not None:
                await self._notify(waiting.identifier, waiting.stage)

    async def _notify(self, identifier: str, stage: Stage) -> None:
        """Send the message of a stage; where no worker can receive it, this one runs the stage if it serves it."""
        is_sent = await self._notifier.notify(identifier, stage) and self._receiver.is_receiving
        if not is_sent and STAGE_TABLE[stage].kind in self._kinds and not self._stopping.is_set():
            self._run_later(identifier, stage)

    def _run_if_free(self, identifier: str, stage: Stage) -> bool:
        """Run a stage in a task of its own. False where the worker has no capacity for another one."""
        if self._capacity.locked() or self._stopping.is_set():
            return False
        self._run_later(identifier, stage)
        return True

    def _run_later(self, identifier: str, stage: Stage) -> None:
        task = asyncio.create_task(self.run_stage(identifier, stage))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _send_callbacks(self) -> None:
        await send_due_callbacks(self._database, self._settings)

    async def _clean(self) -> None:
        """Remove the folders of runs that have ended, and what workers that died have left in the streams."""
        await self._remove_folders()
        await self._receiver.clean_streams()

    async def _remove_folders(self) -> None:
        try:
            await self._folders.remove_leftovers(self._database, self._heartbeats.list_runs())
        except (psycopg.Error, VideoMomentsError) as error:
            _log.debug("The folders of runs that have ended stay: %s", error)


@asynccontextmanager
async def run_worker(resources: Resources, kinds: Collection[WorkKind] = tuple(WorkKind)) -> AsyncIterator[None]:
    """Execute stages in this process. What is not done at the end of the block is released within a few seconds."""
    settings, redis = resources.settings, resources.redis
    models = open_models(settings, redis)
    worker = Worker(settings, resources.database, redis, resources.storage, models, kinds)
    try:
        await worker.start()
        yield
    finally:
        await worker.stop()
        await models.aclose()


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)


@contextmanager
def _log_lines_of(identifier: str) -> Iterator[None]:
    token = request_id.set(identifier)
    try:
        yield
    finally:
        request_id.reset(token)
