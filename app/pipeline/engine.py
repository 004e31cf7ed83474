"""One run: its stages one after the other, each recorded, and what they come to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from app.core.errors import DatabaseUnavailable, RunLost, StageFailed, StorageUnavailable, TransientFailure
from app.core.turns import observe_turns
from app.models.run import RunStatus, StageRecord
from app.models.stages import STAGE_TABLE, RetryRule, Stage, list_stages
from app.pipeline.clock import StageClock
from app.pipeline.context import RunContext
from app.pipeline.failures import first_of, tell_failure
from app.pipeline.outages import through_outages
from app.pipeline.recorder import Recorder
from app.pipeline.slots import Slots
from app.pipeline.stage_code import StageCode
from app.repositories import VideoRepository
from app.repositories.work import Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Engine:
    """What a run is done with."""

    context: RunContext
    codes: Mapping[Stage, StageCode]
    recorder: Recorder
    slots: Slots

    async def run(self) -> Outcome:
        """Do what has not been done of the run and return what it came to.

        Raises `RunLost`, and `DatabaseUnavailable` where PostgreSQL stays away: then another worker goes on.
        """
        for stage in list_stages(self.context.run.type):
            if self.recorder.is_done(stage):
                continue
            try:
                await self._do(stage, self.codes[stage])
            except (RunLost, DatabaseUnavailable):
                raise
            except Exception as error:
                reason = tell_failure(error, stage)
                await self.recorder.fail(stage, reason)
                return _sum_up(self.recorder.records, RunStatus.FAILED, stage, reason)
        return _end(self.recorder.records)

    async def _do(self, stage: Stage, code: StageCode) -> None:
        what = f"Stage {stage} of run {self.context.run.identifier}"
        await asyncio.to_thread(self.context.folder.mkdir, parents=True, exist_ok=True)
        reason = await self._try_again(code.skip_reason, code.definition.retry, what)
        if reason is not None:
            await self.recorder.skip(stage, reason)
            return
        async with self.slots.hold(code.definition.limit_setting, lambda: self.recorder.wait(stage)):
            await self.recorder.begin(stage)
            result = await self._work_within_limit(stage, code, what)
        await self.recorder.complete(stage, result)

    async def _work_within_limit(self, stage: Stage, code: StageCode, what: str) -> Mapping[str, Any]:
        limits = code.definition.time_limit
        seconds = limits.seconds
        if limits.per_video_second:
            seconds += limits.per_video_second * await through_outages(what, self._read_duration)
        try:
            async with asyncio.timeout(seconds) as limit:
                with observe_turns(self._make_clock(limit, stage)):
                    return await self._try_again(code.run_stage, code.definition.retry, what)
        except TimeoutError:
            if limit.expired():
                raise StageFailed(f"{code.definition.title} timed out after {seconds:.7g} seconds") from None
            raise

    def _make_clock(self, limit: asyncio.Timeout, stage: Stage) -> StageClock:
        return StageClock(limit, lambda: self.recorder.wait(stage), lambda: self.recorder.begin(stage))

    async def _read_duration(self) -> float:
        """Return the seconds that the video takes, 0 where nobody knows."""
        async with self.context.database.connect() as conn:
            video = await VideoRepository(conn).get(self.context.run.video_id)
        return (video and video.duration_seconds) or 0.0

    async def _try_again(self, do: Callable[[RunContext], Awaitable[T]], retry: RetryRule, what: str) -> T:
        attempt = 1
        while True:
            try:
                return await through_outages(what, lambda: self._call(do))
            except (TransientFailure, StorageUnavailable):
                if attempt >= retry.attempts:
                    raise
            await asyncio.sleep(retry.pause(attempt))
            attempt += 1

    async def _call(self, do: Callable[[RunContext], Awaitable[T]]) -> T:
        try:
            return await do(self.context)
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors


def _end(records: Mapping[Stage, StageRecord]) -> Outcome:
    for stage, record in records.items():
        if failed := _count(record, "failed"):
            total = _count(record, "total")
            reason = record.result.get("reason") or f"{STAGE_TABLE[stage].title}: {failed} of {total or 'them'} failed"
            return _sum_up(records, RunStatus.PARTIAL, stage, str(reason))
    # Clients show the reason of a skipped stage and of a run, not that of a completed stage.
    reasons = (str(record.result["reason"]) for record in records.values() if record.result.get("too_few"))
    return _sum_up(records, RunStatus.COMPLETED, reason=next(reasons, None))


def _sum_up(
    records: Mapping[Stage, StageRecord], status: RunStatus, stage: Stage | None = None, reason: str | None = None
) -> Outcome:
    totals = {
        name: _count(record, key) for each, record in records.items() for key, name in STAGE_TABLE[each].totals.items()
    }
    return Outcome(status, stage, reason, **totals)


def _count(record: StageRecord, name: str) -> int | None:
    value = record.result.get(name)
    return value if isinstance(value, int) else None
