"""The heartbeats of a worker: that it lives, which of its stages are to stop, and how far they are."""

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
from app.worker.execution import StageExecution, Stop
from app.worker.timings import WorkerTimings

_log = logging.getLogger(__name__)


class Heartbeats:
    """Heartbeats of one worker, the owner of its stages, in one statement for all of them."""

    def __init__(self, database: Database, live: LiveStatusStore, owner: str, timings: WorkerTimings) -> None:
        self._database = database
        self._live = live
        self._owner = owner
        self._timings = timings
        self._executions: dict[int, StageExecution] = {}  # by the id of the run
        self._shown: dict[int, tuple[Mapping[str, str], float]] = {}  # with the time of the loop
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_owner = False  # as far as the last look at PostgreSQL has shown

    @contextmanager
    def maintain_claim(self, execution: StageExecution) -> Iterator[None]:
        """Send heartbeats for a stage in the block, and stop a lost execution of the same run."""
        run_id = execution.context.run.id
        if lost := self._executions.get(run_id):
            lost.stop(Stop.LOST)
        self._executions[run_id] = execution
        self._has_work.set()
        self._is_idle.clear()
        try:
            yield
        finally:
            self._remove(execution)

    def _remove(self, execution: StageExecution) -> None:
        run_id = execution.context.run.id
        if self._executions.get(run_id) is execution:
            del self._executions[run_id]
            self._shown.pop(run_id, None)
        if not self._executions:
            self._has_work.clear()
            self._is_idle.set()

    def list_runs(self) -> list[str]:
        """Return the identifiers of the runs that the worker works on."""
        return [execution.context.run.identifier for execution in self._executions.values()]

    def has(self, identifier: str, stage: Stage) -> bool:
        """Whether the worker works on a stage."""
        runs = (execution.context.run for execution in self._executions.values())
        return any((run.identifier, run.stage) == (identifier, stage) for run in runs)

    async def drain(self) -> None:
        """Wait until the stages are done, for a while, and stop those that are not."""
        for execution in self._executions.values():
            execution.is_last = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_idle.wait(), self._timings.drain_timeout)
        self._stop_all(Stop.RELEASED)

    def _stop_all(self, reason: Stop) -> None:
        for execution in self._executions.values():
            execution.stop(reason)

    async def run(self) -> None:
        """Send heartbeats and live status until cancelled; an outage of Redis delays no heartbeat."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_due_heartbeats())
            tasks.create_task(self._show())

    async def _send_due_heartbeats(self) -> None:
        loop, sent_at = asyncio.get_running_loop(), 0.0
        while True:
            await self._has_work.wait()
            try:
                if loop.time() - sent_at >= self._timings.heartbeat_interval:
                    await self._send_heartbeat()
                    sent_at = loop.time()
                await self._check()
                self._is_owner = True
            except (psycopg.Error, DatabaseUnavailable) as error:
                self._is_owner = False
                _log.debug("No heartbeat of worker %s: %s", self._owner, error)
            except Exception:
                _log.exception("No heartbeat of worker %s", self._owner)
            await asyncio.sleep(self._timings.status_interval)

    async def _send_heartbeat(self) -> None:
        async with self._database.connect() as conn:
            await StageQueueRepository(conn).store_heartbeat(self._owner, list(self._executions))

    async def _check(self) -> None:
        """Stop the stages that are to be cancelled, and those that this worker has lost."""
        before = dict(self._executions)
        async with self._database.connect() as conn:
            held = {row.run_id: row for row in await StageQueueRepository(conn).list_claimed_stages(self._owner)}
        for run_id, execution in before.items():
            if execution.is_settling or self._executions.get(run_id) is not execution:
                continue
            row = held.get(run_id)
            if row is None or row.stage != execution.context.run.stage:
                execution.stop(Stop.LOST)
            elif row.cancel_requested:
                execution.stop(Stop.CANCELLED)

    async def _show(self) -> None:
        """Show what is new of each stage, and everything with each heartbeat; nothing while PostgreSQL is away, when
        another worker may have the stage."""
        while True:
            await self._has_work.wait()
            if self._is_owner:
                shown = await asyncio.gather(
                    *map(self._show_stage, list(self._executions.values())), return_exceptions=True
                )
                for error in filter(None, shown):
                    _log.error("The status of a run is not shown", exc_info=error)
            await asyncio.sleep(self._timings.status_interval)

    async def _show_stage(self, execution: StageExecution) -> None:
        run, now = execution.context.run, asyncio.get_running_loop().time()
        fields, (shown, shown_at) = execution.write_live(), self._shown.get(run.id, ({}, 0.0))
        if execution.is_settling or (fields == shown and now - shown_at < self._timings.heartbeat_interval):
            return
        await self._live.write_active_status(run.identifier, fields, run.video if run.type is RunType.FULL else None)
        if self._executions.get(run.id) is execution:
            self._shown[run.id] = (fields, now)
