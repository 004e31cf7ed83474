"""The heartbeats of a worker: they keep its claims, stop cancelled and lost stages, and publish live statuses."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import psycopg

from app.core.errors import DatabaseUnavailable
from app.database import Database
from app.models.stages import RunType, Stage
from app.repositories.stage_queue import StageQueueRepository
from app.services.live_runs import LiveStatusStore
from app.worker.execution import StageExecution, StopReason
from app.worker.timings import WorkerTimings

_log = logging.getLogger(__name__)


class WorkerHeartbeats:
    """Heartbeats of one worker in PostgreSQL, in one statement for all stages that it executes."""

    def __init__(
        self, database: Database, live_status_store: LiveStatusStore, worker_name: str, timings: WorkerTimings
    ) -> None:
        self._database = database
        self._live_status_store = live_status_store
        self._worker_name = worker_name
        self._timings = timings
        self._executions: dict[int, StageExecution] = {}  # by the id of the run
        self._published: dict[int, tuple[Mapping[str, str], float]] = {}  # with the time of the loop
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_owner = False  # as far as the last look at PostgreSQL has shown

    @contextmanager
    def maintain_claim(self, execution: StageExecution) -> Iterator[None]:
        """Send heartbeats for a stage in the block, and stop a lost execution of the same run."""
        run_id = execution.context.run.id
        if lost := self._executions.get(run_id):
            lost.request_stop(StopReason.LOST)
        self._executions[run_id] = execution
        self._has_work.set()
        self._is_idle.clear()
        try:
            yield
        finally:
            self._remove_execution(execution)

    def _remove_execution(self, execution: StageExecution) -> None:
        run_id = execution.context.run.id
        if self._executions.get(run_id) is execution:
            del self._executions[run_id]
            self._published.pop(run_id, None)
        if not self._executions:
            self._has_work.clear()
            self._is_idle.set()

    def list_executing_runs(self) -> list[str]:
        return [execution.context.run.identifier for execution in self._executions.values()]

    def is_executing(self, run_identifier: str, stage: Stage) -> bool:
        runs = (execution.context.run for execution in self._executions.values())
        return any((run.identifier, run.stage) == (run_identifier, stage) for run in runs)

    async def drain_executions(self) -> None:
        """Wait up to `drain_timeout` for all stages to end, then stop the others, which are released."""
        for execution in self._executions.values():
            execution.is_last = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_idle.wait(), self._timings.drain_timeout)
        for execution in self._executions.values():
            execution.request_stop(StopReason.RELEASED)

    async def send_heartbeats_and_statuses(self) -> None:
        async with asyncio.TaskGroup() as tasks:  # an outage of Redis delays no heartbeat
            tasks.create_task(self._send_heartbeats())
            tasks.create_task(self._publish_changed_statuses())

    async def _send_heartbeats(self) -> None:
        loop, sent_at = asyncio.get_running_loop(), 0.0
        while True:
            await self._has_work.wait()
            try:
                if loop.time() - sent_at >= self._timings.heartbeat_interval:
                    async with self._database.connect() as conn:
                        await StageQueueRepository(conn).store_heartbeat(self._worker_name, list(self._executions))
                    sent_at = loop.time()
                await self._stop_cancelled_and_lost_stages()
                self._is_owner = True
            except (psycopg.Error, DatabaseUnavailable) as error:
                self._is_owner = False
                _log.debug("No heartbeat of worker %s: %s", self._worker_name, error)
            except Exception:
                _log.exception("No heartbeat of worker %s", self._worker_name)
            await asyncio.sleep(self._timings.status_interval)

    async def _stop_cancelled_and_lost_stages(self) -> None:
        before = dict(self._executions)
        async with self._database.connect() as conn:
            claims = {
                row.run_id: row for row in await StageQueueRepository(conn).list_claimed_stages(self._worker_name)
            }
        for run_id, execution in before.items():
            if execution.is_ending or self._executions.get(run_id) is not execution:
                continue
            claim = claims.get(run_id)
            if claim is None or claim.stage != execution.context.run.stage:
                execution.request_stop(StopReason.LOST)
            elif claim.cancel_requested:
                execution.request_stop(StopReason.CANCELLED)

    async def _publish_changed_statuses(self) -> None:
        while True:
            await self._has_work.wait()
            if self._is_owner:  # while PostgreSQL is unavailable, another worker may have the stage
                errors = await asyncio.gather(
                    *map(self._publish_status_if_changed, list(self._executions.values())), return_exceptions=True
                )
                for error in filter(None, errors):
                    _log.error("The status of a run is not shown", exc_info=error)
            await asyncio.sleep(self._timings.status_interval)

    async def _publish_status_if_changed(self, execution: StageExecution) -> None:
        run, now = execution.context.run, asyncio.get_running_loop().time()
        fields, (published, published_at) = execution.make_live_status(), self._published.get(run.id, ({}, 0.0))
        if execution.is_ending or (fields == published and now - published_at < self._timings.heartbeat_interval):
            return
        await self._live_status_store.write_active_status(
            run.identifier, fields, run.video if run.type is RunType.FULL else None
        )
        if self._executions.get(run.id) is execution:
            self._published[run.id] = (fields, now)
