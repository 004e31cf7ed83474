"""The execution of one claimed stage, from its claim to the next stage or the end of the run."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

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
    find_last_reached_stage,
    make_run_outcome_from_stages,
    make_run_outcome_with_totals,
    next_stage,
)
from app.models.stages import STAGE_TABLE, Stage
from app.pipeline.context import LoadedStage, RunContext
from app.pipeline.failures import describe_stage_failure, mask_secrets_in_record, retry_outage, unwrap_first_error
from app.pipeline.files import delete_unused_files
from app.pipeline.time_limits import PausableTimeout
from app.repositories import VideoRepository
from app.repositories.stages import ClaimedRunRepository
from app.services.live_runs import make_live_status_fields
from app.worker.timings import WorkerTimings

T = TypeVar("T")

_log = logging.getLogger(__name__)


class StopReason(Enum):
    """The reasons why a worker stops a stage before it is done, with their words in the log."""

    CANCELLED = "it was cancelled"
    LOST = "another worker has it, or it is gone"
    RELEASED = "its worker ends, and another one is to go on"


@dataclass(frozen=True, slots=True)
class StageEnd:
    """What follows an executed stage: the run's outcome, or its next stage; neither where the stage was stopped.

    `kept_claim` is the claim of the next stage where this worker continues; otherwise the stage waits for a worker.
    """

    outcome: RunOutcome | None = None
    next_stage: Stage | None = None
    kept_claim: ClaimedRun | None = None


class StageExecution:
    """One execution of a claimed stage. Each change is written at once, and only while this worker has the claim."""

    def __init__(self, context: RunContext, loaded_stage: LoadedStage, timings: WorkerTimings) -> None:
        self.context = context
        self.records = dict(context.run.stages)
        self.is_last = False  # the worker ends, and executes no further stage of the run
        self.is_ending = False  # its end is being written, after which the row is not this worker's any more
        self._loaded_stage = loaded_stage
        self._stage = context.run.stage
        self._timings = timings
        self._stop_reason: StopReason | None = None
        self._stopped = asyncio.Event()

    def request_stop(self, reason: StopReason) -> None:
        """Make `execute` return soon. The first reason counts, except that `LOST` replaces any other."""
        if self._stop_reason is None or reason is StopReason.LOST:
            self._stop_reason = reason
        self._stopped.set()

    def make_live_status(self, outcome: RunOutcome | None = None) -> dict[str, str]:
        """Return the fields of the run's live status in Redis, with an `outcome` those of an ended run."""
        run = self.context.run
        fields = make_live_status_fields(
            run, self.records, find_last_reached_stage(self.records), self.context.progress
        )
        if outcome is None:
            return fields
        return fields | {
            "status": outcome.status,
            "completed_at": str(time.time()),
            "error_stage": outcome.error_stage or "",
            "error_message": outcome.error_message or "",
        }

    async def execute(self) -> StageEnd:
        """Run the stage until it is done, has failed or is stopped, store its end, and return what follows.

        Raises `DatabaseUnavailable` where PostgreSQL stays away: the stage then waits for another worker.
        """
        if self.context.run.attempt > self._loaded_stage.definition.retry.attempts:
            return await self._fail_run_claimed_too_often()
        stage_task = asyncio.create_task(self._run_or_skip_stage())
        try:
            await self._wait_for_stage_or_stop(stage_task)
            return await self._store_end_of_stage(stage_task)
        except RunLost:
            self._stop_reason = StopReason.LOST
        _log.info("Run %s is left: %s", self.context.run.identifier, StopReason.LOST.value)
        return StageEnd()

    async def _fail_run_claimed_too_often(self) -> StageEnd:
        run = self.context.run
        async with self.context.database.connect() as conn:
            error = await ClaimedRunRepository(conn).get_error_of_last_attempt(run)
        if error is None:
            reason = f"The worker died {run.attempt - 1} times in stage '{self._stage}'"
        else:
            reason = f"The worker died in the last attempt at stage '{self._stage}'; the one before failed: {error}"
        try:
            return await self._fail_run(self._make_failed_record(reason))
        except RunLost:
            return StageEnd()

    async def _run_or_skip_stage(self) -> StageRecord:
        """Return the record of the stage after it was skipped or completed, or of its end in an earlier attempt."""
        if self._stage in self.records and self.records[self._stage].is_completed_or_skipped:
            return self.records[self._stage]
        await asyncio.to_thread(self.context.folder.mkdir, parents=True, exist_ok=True)
        reason = await self._call_stage_function(self._loaded_stage.skip_reason)
        if reason is not None:
            return StageRecord(StageStatus.SKIPPED, skip_reason=reason)
        await self._record_stage_as_begun()
        seconds = await self._read_time_limit_seconds()
        try:
            async with asyncio.timeout(seconds) as limit:
                with observe_slots(PausableTimeout(limit, self._record_stage_as_waiting, self._record_stage_as_begun)):
                    result = await self._call_stage_function(self._loaded_stage.run_stage)
        except TimeoutError:
            if limit.expired():
                title = self._loaded_stage.definition.title
                raise StageFailed(f"{title} timed out after {seconds:.7g} seconds") from None
            raise
        return replace(self.records[self._stage], status=StageStatus.COMPLETED, result=result)

    async def _call_stage_function(self, stage_function: Callable[[RunContext], Awaitable[T]]) -> T:
        """Call a function of the stage, and again after a temporary failure, as often as the stage's rule allows.

        Calls while PostgreSQL is unavailable do not count. The retries are not on the stack of the first call.
        """
        try:
            return await stage_function(self.context)
        except (Exception, BaseExceptionGroup) as error:
            first_failure = [error]

        async def call_again() -> T:
            try:
                if first_failure:
                    raise first_failure.pop()
                return await stage_function(self.context)
            except (Exception, BaseExceptionGroup) as error:
                raise unwrap_first_error(error) from error.__cause__

        rule = self._loaded_stage.definition.retry
        return await call_with_retries(
            lambda: retry_outage(self._description_for_log, call_again, is_idle=False),
            RetryPolicy(self._is_failure_retried, lambda _: rule.seconds_before_retry(self.context.run.attempt)),
            before_wait=self._start_next_attempt,
        )

    @property
    def _description_for_log(self) -> str:
        return f"Stage {self._stage} of run {self.context.run.identifier}"

    def _is_failure_retried(self, failure: BaseException) -> bool:
        rule = self._loaded_stage.definition.retry
        is_transient = isinstance(failure, (TransientFailure, StorageUnavailable))
        return is_transient and rule.retries_failures and self.context.run.attempt < rule.attempts

    async def _start_next_attempt(self, failed_call: FailedCall) -> None:
        run, reason = self.context.run, describe_stage_failure(failed_call.error, self._stage)
        self.context.run = await self._write_with_outage_retries(
            lambda claimed: claimed.start_next_attempt(run, reason)
        )
        report_idle_time(failed_call.wait)

    async def _read_time_limit_seconds(self) -> float:
        limit = self._loaded_stage.definition.time_limit
        if not limit.per_video_second:
            return limit.seconds
        video = await retry_outage(self._description_for_log, self.context.find_video)
        return limit.seconds + limit.per_video_second * ((video and video.duration_seconds) or 0.0)

    async def _record_stage_as_waiting(self) -> None:
        await self._save_stage_record(StageRecord(StageStatus.WAITING))

    async def _record_stage_as_begun(self) -> None:
        self.context.progress = None
        await self._save_stage_record(StageRecord(StageStatus.PROCESSING, time.time()))

    async def _save_stage_record(self, record: StageRecord) -> None:
        self.records[self._stage] = record
        await self._write_with_outage_retries(lambda claimed: claimed.save_stage_record(self.context.run, record))

    async def _wait_for_stage_or_stop(self, stage_task: asyncio.Task[StageRecord]) -> None:
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({stage_task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not stage_task.done():
                stage_task.cancel()
                await asyncio.wait(
                    {stage_task}, timeout=self._timings.shutdown_timeout
                )  # one that goes on writes nothing

    async def _store_end_of_stage(self, stage_task: asyncio.Task[StageRecord]) -> StageEnd:
        """Move the run to its next stage, end it, or release it, by the result of the task; return what follows."""
        record = self._read_stage_record(stage_task)
        # A stage that fails because it is stopped has not failed.
        if record is not None and (self._stop_reason is None or record.status is not StageStatus.FAILED):
            return await (self._advance_run(record) if record.is_completed_or_skipped else self._fail_run(record))
        if self._stop_reason is StopReason.CANCELLED:
            return await self._cancel_run()
        if self._stop_reason is StopReason.RELEASED:
            await self._release_stage()
        if self._stop_reason is not None:
            _log.info("Run %s is left: %s", self.context.run.identifier, self._stop_reason.value)
        return StageEnd()

    def _read_stage_record(self, stage_task: asyncio.Task[StageRecord]) -> StageRecord | None:
        """Return the result of the task, its error as the record of a failure, None where it was stopped."""
        if not stage_task.done() or (stage_task.cancelled() and self._stop_reason is not None):
            return None
        try:
            return stage_task.result()
        except (RunLost, DatabaseUnavailable):
            raise
        except (Exception, asyncio.CancelledError) as error:
            return self._make_failed_record(describe_stage_failure(error, self._stage))

    def _make_failed_record(self, reason: str) -> StageRecord:
        begun = self.records.get(self._stage, StageRecord(StageStatus.PENDING))
        return replace(begun, status=StageStatus.FAILED, error=reason)

    def _set_end_of_record(self, record: StageRecord) -> StageRecord:
        """Add the time of the end and the progress counters, mask secrets, and keep the record."""
        if record.status is not StageStatus.SKIPPED and record.completed_at is None:
            record = replace(record, completed_at=time.time(), progress=self.context.progress)
        self.records[self._stage] = record = mask_secrets_in_record(record)
        return record

    async def _advance_run(self, record: StageRecord) -> StageEnd:
        """Move the run to its next stage, or end it after the last one, or where a cancellation is requested."""
        record, run = self._set_end_of_record(record), self.context.run
        stage = next_stage(run.type, self.records)
        if stage in self.records and self.records[stage].is_completed_or_skipped:
            return await self._end_run(make_run_outcome_from_stages(self.records), record)
        self.is_ending = True
        keep = _continues_on_same_worker(self._stage, stage) and not self.is_last
        if not await self._write_with_outage_retries(
            lambda claimed: claimed.advance_run(run, record, stage, keep_claim=keep)
        ):
            return await self._end_run(RunOutcome(RunStatus.CANCELLED), record)
        self._log_end_of_stage(record)
        if keep:
            return StageEnd(next_stage=stage, kept_claim=replace(run, stage=stage, attempt=1, stages=self.records))
        self.records[stage] = StageRecord(StageStatus.WAITING)
        return StageEnd(next_stage=stage)

    async def _fail_run(self, failed_record: StageRecord) -> StageEnd:
        record = self._set_end_of_record(failed_record)
        return await self._end_run(
            make_run_outcome_with_totals(self.records, RunStatus.FAILED, self._stage, record.error), record
        )

    async def _cancel_run(self) -> StageEnd:
        record = self.records.get(self._stage)
        if record is not None and record.is_waiting_or_processing:
            record = self._set_end_of_record(replace(record, status=StageStatus.CANCELLED))
        return await self._end_run(RunOutcome(RunStatus.CANCELLED), record)

    async def _end_run(self, outcome: RunOutcome, record: StageRecord | None) -> StageEnd:
        run = self.context.run
        self.is_ending = True

        async def finish_run() -> set[str]:
            async with self.context.database.connect() as conn, conn.transaction():
                await VideoRepository(conn).lock_video(run.video)
                return await ClaimedRunRepository(conn).finish_run(run, outcome, record)

        files = await retry_outage(f"The end of run {run.identifier}", finish_run)
        if record is not None:
            self._log_end_of_stage(record)
        await delete_unused_files(self.context, files)
        reason = f": {outcome.error_message}" if outcome.error_message else ""
        facts = {"run": run.identifier, "status": outcome.status.value}
        _log.info("Run %s %s%s", run.identifier, outcome.status, reason, extra=facts)
        return StageEnd(outcome)

    async def _release_stage(self) -> None:
        run = self.context.run
        self.is_ending = True
        try:
            async with (
                asyncio.timeout(self._timings.shutdown_timeout),
                self.context.database.connect() as conn,
                conn.transaction(),
            ):
                await ClaimedRunRepository(conn).release_stage(run)
        except (psycopg.Error, VideoMomentsError, TimeoutError) as error:
            _log.warning("Run %s is not released, it waits until its heartbeat is missed: %s", run.identifier, error)

    async def _write_with_outage_retries(self, write: Callable[[ClaimedRunRepository], Awaitable[T]]) -> T:
        async def connect_and_write() -> T:
            async with self.context.database.connect() as conn:
                return await write(ClaimedRunRepository(conn))

        return await retry_outage(f"The record of run {self.context.run.identifier}", connect_and_write)

    def _log_end_of_stage(self, record: StageRecord) -> None:
        seconds = round((record.completed_at or 0) - (record.started_at or record.completed_at or 0), 3)
        run, stage = self.context.run.identifier, self._stage
        facts = {"run": run, "stage": stage.value, "status": record.status.value, "seconds": seconds}
        reason = record.error or record.skip_reason
        text = f": {reason}" if reason else ""
        _log.info("Run %s: %s %s in %.1f s%s", run, stage, record.status, seconds, text, extra=facts)


def _continues_on_same_worker(stage: Stage, next_stage: Stage) -> bool:
    """Return whether the next stage is of the same kind, so that its files are here, and has no limit over workers."""
    definition = STAGE_TABLE[next_stage]
    return definition.kind is STAGE_TABLE[stage].kind and definition.limit_setting is None
