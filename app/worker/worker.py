"""A worker: it receives messages of stages that wait, claims them in PostgreSQL, and executes them."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import psycopg
from redis.asyncio import Redis

from app.ai.protocols import Models
from app.core.config import Settings
from app.core.errors import VideoMomentsError
from app.core.logging import request_id
from app.database import Database
from app.models.runs import ClaimedRun, RunStatus
from app.models.stages import STAGE_TABLE, RunType, Stage, WorkKind
from app.pipeline.context import LoadedStage, RunContext, load_stages
from app.pipeline.failures import convert_to_outage
from app.repositories.stage_queue import StageQueueRepository
from app.resources import Resources
from app.services.live_runs import LiveStatusStore
from app.services.queue import StageNotifier
from app.services.search_index import index_waiting
from app.services.search_vectors import PassageEmbedder
from app.storage import Storage
from app.worker.callbacks import send_due_callbacks
from app.worker.execution import StageEnd, StageExecution, StopReason
from app.worker.folders import RunFolders
from app.worker.heartbeats import WorkerHeartbeats
from app.worker.intake import RequestStreamConsumer
from app.worker.monitor import QueueMonitor
from app.worker.periodic import PeriodicTasks
from app.worker.playables import PlayableCopyMaker
from app.worker.receiver import StageMessageReceiver
from app.worker.timings import DEFAULT_TIMINGS, WorkerTimings

_log = logging.getLogger(__name__)

_NAME_LENGTH = 100  # of `pipeline.runs.owner`
_CANCEL_SECONDS = 6.0  # for what is cancelled to end
_REDIS_TIMEOUT_SECONDS = 3.0  # two transcriptions on this machine may keep the loop waiting for seconds


class Worker:
    """Executes up to `pipeline_concurrency` stages at once; PostgreSQL decides which worker gets a stage."""

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
        self._live_status_store = LiveStatusStore(redis, _REDIS_TIMEOUT_SECONDS)
        self._folders = RunFolders(settings)
        self._notifier = StageNotifier(settings)
        self._intake = RequestStreamConsumer(settings, database, redis, storage, self._notifier.notify)
        self._receiver = StageMessageReceiver(settings, self._kinds, self.name, self.run_stage)
        self._limits = {
            stage: getattr(settings, row.limit_setting) for stage, row in STAGE_TABLE.items() if row.limit_setting
        }
        self._monitor = QueueMonitor(
            database, self._notifier, self._receiver, self._kinds, self._start_stage_if_free, self._limits, timings
        )
        self._heartbeats = WorkerHeartbeats(database, self._live_status_store, self.name, timings)
        self._playables = PlayableCopyMaker(settings, database, storage, self.name, timings)
        self._passage_embedder = PassageEmbedder(
            database, models, settings.search_embedding_model, lambda: bool(self._running)
        )
        self._periodic = PeriodicTasks()
        self._capacity = asyncio.Semaphore(settings.pipeline_concurrency)
        self._stopping = asyncio.Event()
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._intake_task: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Start the tasks of the worker, which also wait for a PostgreSQL or Redis that is unavailable."""
        if self._stages is None:
            self._stages = await asyncio.to_thread(load_stages, self._kinds)
        self._heartbeat_task = asyncio.create_task(self._heartbeats.send_heartbeats_and_statuses())
        timings = self._timings
        self._monitor.start_stall_detection()
        self._periodic.add_task("queue", timings.poll_interval, self._monitor.poll_queue)
        self._periodic.add_task(
            "callbacks", timings.poll_interval, partial(send_due_callbacks, self._database, self._settings)
        )
        self._periodic.add_task("search index", timings.poll_interval, partial(index_waiting, self._database))
        self._periodic.add_task("search vectors", timings.poll_interval, self._passage_embedder.embed_waiting)
        self._periodic.add_task("leftovers", timings.cleaning_interval, self._remove_leftovers_of_dead_workers)
        if WorkKind.CLIPS in self._kinds:
            self._periodic.add_task("playable copies", timings.poll_interval, self._playables.process_waiting_files)
        self._intake_task = asyncio.create_task(self._intake.consume_until_cancelled())
        self._periodic.start_scheduler()
        self._receiver.start_receiving(self._settings.pipeline_concurrency)
        _log.info(
            "Worker %s executes %d stages at once: %s",
            self.name,
            self._settings.pipeline_concurrency,
            ", ".join(self._kinds),
        )

    async def stop(self) -> None:
        """Claim no more stages, and release those that are not done, for other workers."""
        self._stopping.set()
        timeout_seconds = self._timings.drain_timeout + self._timings.shutdown_timeout + 1
        stops = {
            asyncio.create_task(self._heartbeats.drain_executions(), name="heartbeats"),
            asyncio.create_task(self._periodic.cancel_all_tasks(timeout_seconds), name="periodic work"),
            asyncio.create_task(_cancel_task(self._intake_task), name="intake"),
            asyncio.create_task(self._receiver.stop_receiving(), name="receiver"),
            asyncio.create_task(self._wait_for_running_stages(timeout_seconds), name="stages"),
        }
        _, late = await asyncio.wait(stops, timeout=timeout_seconds + 1)
        for task in late:
            _log.warning("The worker ends without its %s, which does not stop", task.get_name())
            task.cancel()
        await _cancel_task(self._heartbeat_task)  # the last of all: what is being released is still this worker's
        await self._notifier.aclose()

    async def _wait_for_running_stages(self, timeout_seconds: float) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout_seconds)
            for task in late:
                task.cancel()

    async def run_stage(self, run_identifier: str, stage: Stage) -> bool:
        """Claim and execute a waiting stage and the next ones that stay here; return whether none failed.

        Never raises. A stage that another worker has claimed, or that waits no more, is skipped.
        """
        has_failed = False
        with self._counted_as_running(), _log_with_run_identifier(run_identifier):
            try:
                async with self._capacity:
                    run = None if self._stopping.is_set() else await self._claim_stage(run_identifier, stage)
                    while run is not None:
                        stage, execution = run.stage, self._make_stage_execution(run)
                        with self._heartbeats.maintain_claim(execution):
                            stage_end = await execution.execute()
                        await self._publish_stage_end(execution, stage_end)
                        run = stage_end.kept_claim
                        has_failed = stage_end.outcome is not None and stage_end.outcome.status is RunStatus.FAILED
            except (psycopg.Error, VideoMomentsError) as error:
                has_failed = True
                _log.warning("Run %s waits for another try: %s", run_identifier, convert_to_outage(error) or error)
            except Exception:
                has_failed = True
                _log.exception("Run %s waits for another try", run_identifier)
            if self._stopping.is_set():
                await self._notifier.notify(run_identifier, stage)
        return not has_failed

    @contextmanager
    def _counted_as_running(self) -> Iterator[None]:
        """Make `stop` wait for the current task until the block ends."""
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    async def _claim_stage(self, run_identifier: str, stage: Stage) -> ClaimedRun | None:
        """Claim a stage; None where another worker has it or limits forbid it, or this worker executes it already."""
        if self._heartbeats.is_executing(run_identifier, stage):  # whose heartbeats are late after the machine slept
            return None
        stalled_after, limit = self._monitor.stalled_after, self._limits.get(stage)
        async with self._database.connect() as conn:
            return await StageQueueRepository(conn).claim_stage(run_identifier, stage, self.name, stalled_after, limit)

    def _make_stage_execution(self, run: ClaimedRun) -> StageExecution:
        folder = self._folders.get_folder_path(run.identifier)
        context = RunContext(run, self._settings, self._database, self._storage, self._models, folder)
        execution = StageExecution(context, (self._stages or {})[run.stage], self._timings)
        if self._stopping.is_set():
            execution.request_stop(StopReason.RELEASED)
        return execution

    async def _publish_stage_end(self, execution: StageExecution, stage_end: StageEnd) -> None:
        """Publish the status after a stage and notify workers of the next one; a poll finds lost messages."""
        run = execution.context.run
        if stage_end.outcome is not None:
            fields = execution.make_live_status(stage_end.outcome)
            await self._live_status_store.write_ended_status(run.identifier, run.video, fields)
            await self._folders.remove_folder(run.identifier)
        elif stage_end.next_stage is not None and stage_end.kept_claim is None:
            video = run.video if run.type is RunType.FULL else None
            await self._live_status_store.write_active_status(
                run.identifier, execution.make_live_status(), video, is_waiting=True
            )
            if STAGE_TABLE[stage_end.next_stage].kind not in self._kinds:
                await self._folders.remove_folder(run.identifier)  # another machine goes on, with what is stored
            await self._notify_or_run(run.identifier, stage_end.next_stage)
        elif stage_end.kept_claim is None and not self._stopping.is_set():  # another worker here may need its folder
            await self._remove_folders_of_ended_runs()
        if run.stage in self._limits:
            await self._notify_next_waiting_run(run.stage)

    async def _notify_next_waiting_run(self, stage: Stage) -> None:
        try:
            async with self._database.connect() as conn:
                waiting = await StageQueueRepository(conn).take_next_waiting_stage(stage, self._monitor.stalled_after)
        except (psycopg.Error, VideoMomentsError) as error:
            _log.debug("A run that waits at stage %s is found by the next poll: %s", stage, error)
        else:
            if waiting is not None:
                await self._notify_or_run(waiting.identifier, waiting.stage)

    async def _notify_or_run(self, run_identifier: str, stage: Stage) -> None:
        """Send the message of a stage; where Redis fails, run the stage here if this worker serves its kind."""
        is_sent = await self._notifier.notify(run_identifier, stage) and self._receiver.is_receiving
        if not is_sent and STAGE_TABLE[stage].kind in self._kinds and not self._stopping.is_set():
            self._start_stage_task(run_identifier, stage)

    def _start_stage_if_free(self, run_identifier: str, stage: Stage) -> bool:
        """Run a stage in a task of its own, and return True; return False where the worker has no capacity."""
        if self._capacity.locked() or self._stopping.is_set():
            return False
        self._start_stage_task(run_identifier, stage)
        return True

    def _start_stage_task(self, run_identifier: str, stage: Stage) -> None:
        task = asyncio.create_task(self.run_stage(run_identifier, stage))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _remove_leftovers_of_dead_workers(self) -> None:
        await self._remove_folders_of_ended_runs()
        await self._receiver.remove_dead_consumers()

    async def _remove_folders_of_ended_runs(self) -> None:
        try:
            await self._folders.remove_folders_of_ended_runs(self._database, self._heartbeats.list_executing_runs())
        except (psycopg.Error, VideoMomentsError) as error:
            _log.debug("The folders of runs that have ended stay: %s", error)


@asynccontextmanager
async def run_worker(resources: Resources, kinds: Collection[WorkKind] = tuple(WorkKind)) -> AsyncIterator[None]:
    """Run a worker in this process until the block ends; unfinished stages are then released within seconds."""
    worker = Worker(resources.settings, resources.database, resources.redis, resources.storage, resources.models, kinds)
    try:
        await worker.start()
        yield
    finally:
        await worker.stop()


async def _cancel_task(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)


@contextmanager
def _log_with_run_identifier(run_identifier: str) -> Iterator[None]:
    token = request_id.set(run_identifier)
    try:
        yield
    finally:
        request_id.reset(token)
