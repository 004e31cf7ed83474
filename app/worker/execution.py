"""The execution of one claimed stage, from its claim to the next stage or the end of the run."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar

import psycopg

from app.core.errors import (
    DatabaseUnavailable,
    RunLost,
    StageFailed,
    StorageUnavailable,
    TransientFailure,
    VideoMomentsError,
)
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
from app.core.thread_pool import observe_slots, report_idle_time
from app.models.runs import (
    ClaimedRun,
    RunOutcome,
    RunStatus,
    StageRecord,
    StageStatus,
    find_last_started_stage,
    make_run_outcome,
    make_run_outcome_from_stages,
    next_stage,
)
from app.models.stages import STAGE_TABLE, Stage
from app.pipeline.context import LoadedStage, RunContext
from app.pipeline.failures import describe_failure, first_error, mask_record, retry_outage
from app.pipeline.files import delete_unused_files
from app.pipeline.time_limits import StageTimeout
from app.repositories import VideoRepository
from app.repositories.stages import ClaimedRunRepository
from app.services.live_runs import make_live_status_fields
from app.worker.timings import WorkerTimings

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Stop(Enum):
    """Why a worker leaves a stage before it is done."""

    CANCELLED = "it was cancelled"
    LOST = "another worker has it, or it is gone"
    RELEASED = "its worker ends, and another one is to go on"


@dataclass(frozen=True, slots=True)
class Executed:
    """What came of a stage: the run has ended, or is at its next stage, which is `kept` by this worker or waits for
    one. Neither where the stage was left."""

    outcome: RunOutcome | None = None
    next_stage: Stage | None = None
    kept: ClaimedRun | None = None


class StageExecution:
    """Executes a claimed stage. Each change is written at once, and only while the stage is this worker's."""

    def __init__(self, context: RunContext, code: LoadedStage, timings: WorkerTimings) -> None:
        self.context = context
        self.records = dict(context.run.stages)
        self.is_last = False  # the worker ends, and executes no further stage of the run
        self.is_settling = False  # its end is being written, after which the row is not this worker's any more
        self._code = code
        self._stage = context.run.stage
        self._timings = timings
        self._stop_reason: Stop | None = None
        self._stopped = asyncio.Event()

    def stop(self, reason: Stop) -> None:
        """Have it end soon. The first reason counts, except that what is lost is lost."""
        if self._stop_reason is None or reason is Stop.LOST:
            self._stop_reason = reason
        self._stopped.set()

    def write_live(self, outcome: RunOutcome | None = None) -> dict[str, str]:
        """Return the fields of the run's live status; those of its end with an `outcome`."""
        run = self.context.run
        fields = make_live_status_fields(
            run, self.records, find_last_started_stage(self.records), self.context.progress
        )
        if outcome is None:
            return fields
        return fields | {
            "status": outcome.status,
            "completed_at": str(time.time()),
            "error_stage": outcome.error_stage or "",
            "error_message": outcome.error_message or "",
        }

    async def execute(self) -> Executed:
        """Work on the stage until it is done, has failed, or is not to be worked on here any more.

        Raises `DatabaseUnavailable` where PostgreSQL stays away: the stage then waits for another worker.
        """
        if self.context.run.attempt > self._code.definition.retry.attempts:
            return await self._fail_exhausted()
        work = asyncio.create_task(self._run())
        try:
            await self._wait_for(work)
            return await self._settle(work)
        except RunLost:
            self._stop_reason = Stop.LOST
        _log.info("Run %s is left: %s", self.context.run.identifier, Stop.LOST.value)
        return Executed()

    async def _fail_exhausted(self) -> Executed:
        """End a run whose stage was claimed too often."""
        run = self.context.run
        async with self.context.database.connect() as conn:
            error = await ClaimedRunRepository(conn).get_last_error(run)
        if error is None:
            reason = f"The worker died {run.attempt - 1} times in stage '{self._stage}'"
        else:
            reason = f"The worker died in the last attempt at stage '{self._stage}'; the one before failed: {error}"
        try:
            return await self._finish(self._failed(reason))
        except RunLost:
            return Executed()

    async def _run(self) -> StageRecord:
        """Return the record of the stage as it is done."""
        if self._stage in self.records and self.records[self._stage].is_completed_or_skipped:
            return self.records[self._stage]
        await asyncio.to_thread(self.context.folder.mkdir, parents=True, exist_ok=True)
        reason = await self._call(self._code.skip_reason)
        if reason is not None:
            return StageRecord(StageStatus.SKIPPED, skip_reason=reason)
        await self._begin()
        seconds = await self._read_limit()
        try:
            async with asyncio.timeout(seconds) as limit:
                with observe_slots(StageTimeout(limit, self._wait, self._begin)):
                    result = await self._call(self._code.run_stage)
        except TimeoutError:
            if limit.expired():
                raise StageFailed(f"{self._code.definition.title} timed out after {seconds:.7g} seconds") from None
            raise
        return replace(self.records[self._stage], status=StageStatus.COMPLETED, result=result)

    async def _call(self, function: Callable[[RunContext], Awaitable[T]]) -> T:
        """Call a function of the stage; what retries it is not on the stack of its first call."""
        try:
            return await function(self.context)
        except (Exception, BaseExceptionGroup) as error:
            failure = error
        return await self._retry(function, failure)

    async def _retry(self, function: Callable[[RunContext], Awaitable[T]], failure: BaseException | None) -> T:
        """Handle a failure, and call the function again after a temporary one: for the attempts that the stage's rule
        allows, and without counting them while PostgreSQL is unavailable."""

        async def call() -> T:
            nonlocal failure
            try:
                if failure is not None:
                    first, failure = failure, None
                    raise first
                return await function(self.context)
            except (Exception, BaseExceptionGroup) as error:
                raise first_error(error) from error.__cause__

        subject, rule = f"Stage {self._stage} of run {self.context.run.identifier}", self._code.definition.retry
        return await call_with_retries(
            lambda: retry_outage(subject, call, is_idle=False),
            RetryPolicy(self._may_try_again, lambda _: rule.seconds_before_retry(self.context.run.attempt)),
            before_wait=self._start_attempt,
        )

    def _may_try_again(self, failure: BaseException) -> bool:
        rule = self._code.definition.retry
        is_transient = isinstance(failure, (TransientFailure, StorageUnavailable))
        return is_transient and rule.retries_failures and self.context.run.attempt < rule.attempts

    async def _start_attempt(self, failed: FailedCall) -> None:
        run, reason = self.context.run, describe_failure(failed.error, self._stage)
        self.context.run = await self._write(lambda claimed: claimed.start_next_attempt(run, reason))
        report_idle_time(failed.wait)

    async def _read_limit(self) -> float:
        """Return the seconds that the stage may take; a video of unknown length adds none."""
        limit = self._code.definition.time_limit
        if not limit.per_video_second:
            return limit.seconds

        async def read() -> float:
            async with self.context.database.connect() as conn:
                video = await VideoRepository(conn).get(self.context.run.video_id)
            return (video and video.duration_seconds) or 0.0

        duration = await retry_outage(f"Stage {self._stage} of run {self.context.run.identifier}", read)
        return limit.seconds + limit.per_video_second * duration

    async def _wait(self) -> None:
        """Record that the stage waits for its turn."""
        await self._save(StageRecord(StageStatus.WAITING))

    async def _begin(self) -> None:
        self.context.progress = None
        await self._save(StageRecord(StageStatus.PROCESSING, time.time()))

    async def _save(self, record: StageRecord) -> None:
        self.records[self._stage] = record
        await self._write(lambda claimed: claimed.save_stage_record(self.context.run, record))

    async def _wait_for(self, work: asyncio.Task[StageRecord]) -> None:
        """Wait until the stage ends. One that does not let itself be stopped is left alone: it can write nothing for a
        stage that is not this worker's any more."""
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=self._timings.shutdown_timeout)

    async def _settle(self, work: asyncio.Task[StageRecord]) -> Executed:
        """Write what came of the work."""
        record = self._read(work)
        # A stage that fails because it is stopped has not failed.
        if record is not None and (self._stop_reason is None or record.status is not StageStatus.FAILED):
            return await (self._advance(record) if record.is_completed_or_skipped else self._finish(record))
        if self._stop_reason is Stop.CANCELLED:
            return await self._cancel()
        if self._stop_reason is Stop.RELEASED:
            await self._release()
        if self._stop_reason is not None:
            _log.info("Run %s is left: %s", self.context.run.identifier, self._stop_reason.value)
        return Executed()

    def _read(self, work: asyncio.Task[StageRecord]) -> StageRecord | None:
        """Return the record of the finished work, None where it was stopped."""
        if not work.done() or (work.cancelled() and self._stop_reason is not None):
            return None
        try:
            return work.result()
        except (RunLost, DatabaseUnavailable):
            raise
        except (Exception, asyncio.CancelledError) as error:
            return self._failed(describe_failure(error, self._stage))

    def _failed(self, reason: str) -> StageRecord:
        begun = self.records.get(self._stage, StageRecord(StageStatus.PENDING))
        return replace(begun, status=StageStatus.FAILED, error=reason)

    def _end_record(self, record: StageRecord) -> StageRecord:
        """Return the record with the time of its end and with what the stage counted, and keep it."""
        if record.status is not StageStatus.SKIPPED and record.completed_at is None:
            record = replace(record, completed_at=time.time(), progress=self.context.progress)
        self.records[self._stage] = record = mask_record(record)
        return record

    async def _advance(self, record: StageRecord) -> Executed:
        """Move the run to its next stage, or end it after the last one, or where it is to be cancelled."""
        record, run = self._end_record(record), self.context.run
        stage = next_stage(run.type, self.records)
        if stage in self.records and self.records[stage].is_completed_or_skipped:
            return await self._end(make_run_outcome_from_stages(self.records), record)
        self.is_settling = True
        keep = _stays(self._stage, stage) and not self.is_last
        if not await self._write(lambda claimed: claimed.advance_run(run, record, stage, keep_claim=keep)):
            return await self._end(RunOutcome(RunStatus.CANCELLED), record)
        self._log(record)
        if keep:
            kept = replace(run, stage=stage, attempt=1, stages=self.records)
            return Executed(next_stage=stage, kept=kept)
        self.records[stage] = StageRecord(StageStatus.WAITING)
        return Executed(next_stage=stage)

    async def _finish(self, record: StageRecord) -> Executed:
        """End the run with a stage that has failed."""
        record = self._end_record(record)
        return await self._end(make_run_outcome(self.records, RunStatus.FAILED, self._stage, record.error), record)

    async def _cancel(self) -> Executed:
        record = self.records.get(self._stage)
        if record is not None and record.is_waiting_or_processing:
            record = self._end_record(replace(record, status=StageStatus.CANCELLED))
        return await self._end(RunOutcome(RunStatus.CANCELLED), record)

    async def _end(self, outcome: RunOutcome, record: StageRecord | None) -> Executed:
        run = self.context.run
        self.is_settling = True

        async def end() -> set[str]:
            async with self.context.database.connect() as conn, conn.transaction():
                await VideoRepository(conn).lock_video(run.video)
                return await ClaimedRunRepository(conn).finish_run(run, outcome, record)

        files = await retry_outage(f"The end of run {run.identifier}", end)
        if record is not None:
            self._log(record)
        await delete_unused_files(self.context, files)
        reason = f": {outcome.error_message}" if outcome.error_message else ""
        facts = {"run": run.identifier, "status": outcome.status.value}
        _log.info("Run %s %s%s", run.identifier, outcome.status, reason, extra=facts)
        return Executed(outcome)

    async def _release(self) -> None:
        run = self.context.run
        self.is_settling = True
        try:
            async with (
                asyncio.timeout(self._timings.shutdown_timeout),
                self.context.database.connect() as conn,
                conn.transaction(),
            ):
                await ClaimedRunRepository(conn).release_stage(run)
        except (psycopg.Error, VideoMomentsError, TimeoutError) as error:
            _log.warning("Run %s is not released, it waits until its heartbeat is missed: %s", run.identifier, error)

    async def _write(self, write: Callable[[ClaimedRunRepository], Awaitable[T]]) -> T:
        async def connect() -> T:
            async with self.context.database.connect() as conn:
                return await write(ClaimedRunRepository(conn))

        return await retry_outage(f"The record of run {self.context.run.identifier}", connect)

    def _log(self, record: StageRecord) -> None:
        seconds = round((record.completed_at or 0) - (record.started_at or record.completed_at or 0), 3)
        run, stage = self.context.run.identifier, self._stage
        facts: Mapping[str, Any] = {
            "run": run,
            "stage": stage.value,
            "status": record.status.value,
            "seconds": seconds,
        }
        reason = record.error or record.skip_reason
        text = f": {reason}" if reason else ""
        _log.info("Run %s: %s %s in %.1f s%s", run, stage, record.status, seconds, text, extra=facts)


def _stays(stage: Stage, following: Stage) -> bool:
    """Return whether the same worker runs the next stage: it is of the same kind, so its files are here, and has no
    limit over all workers."""
    definition = STAGE_TABLE[following]
    return definition.kind is STAGE_TABLE[stage].kind and definition.limit_setting is None
