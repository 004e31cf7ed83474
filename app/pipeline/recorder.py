"""What has become of the stages of a run, in PostgreSQL and at hand."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.core.masking import mask_secrets, mask_values
from app.core.text import escape_controls
from app.models.run import StageRecord, StageStatus
from app.models.stages import Stage, list_stages
from app.pipeline.context import RunContext
from app.pipeline.outages import through_outages
from app.repositories.live_fields import write_run
from app.repositories.work import Outcome, WorkRepository

_log = logging.getLogger(__name__)


def mask_record(record: StageRecord) -> StageRecord:
    """Return a record without secrets in its reasons and in what it names, its reasons on one line."""
    return replace(
        record,
        error=_mask_reason(record.error),
        skip_reason=_mask_reason(record.skip_reason),
        result=mask_values(record.result),
    )


def _mask_reason(reason: str | None) -> str | None:
    return None if reason is None else escape_controls(mask_secrets(reason))


class Recorder:
    """Each change is written at once, and raises `RunLost` where the run is another worker's."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.records = dict(context.run.stages)
        self.current: Stage | None = None

    def is_done(self, stage: Stage) -> bool:
        return stage in self.records and self.records[stage].is_done

    async def skip(self, stage: Stage, reason: str) -> None:
        await self._save(stage, StageRecord(StageStatus.SKIPPED, skip_reason=reason))

    async def wait(self, stage: Stage) -> None:
        """Record that the stage waits for its turn."""
        await self._save(stage, StageRecord(StageStatus.WAITING))

    async def begin(self, stage: Stage) -> None:
        self._context.progress = None
        await self._save(stage, StageRecord(StageStatus.PROCESSING, time.time()))

    async def complete(self, stage: Stage, result: Mapping[str, Any]) -> None:
        record = replace(self.records[stage], status=StageStatus.COMPLETED, result=result)
        await self._end(stage, record)

    async def fail(self, stage: Stage, error: str) -> None:
        record = replace(self.records.get(stage, StageRecord(StageStatus.PENDING)), status=StageStatus.FAILED)
        await self._end(stage, replace(record, error=error))

    async def cancel(self) -> None:
        """Record that the stage that is under way, if there is one, does not go on."""
        if self.current is not None and self.records[self.current].is_under_way:
            await self._end(self.current, replace(self.records[self.current], status=StageStatus.CANCELLED))

    def find_unfinished(self) -> Stage:
        """Return the stage that a run that stops now has stopped at."""
        stages = list_stages(self._context.run.type)
        begun = (stage for stage in stages if stage in self.records and not self.records[stage].is_done)
        left = (stage for stage in stages if not self.is_done(stage))
        return next(begun, None) or next(left, stages[-1])

    def write_live(self, outcome: Outcome | None = None) -> dict[str, str]:
        """Return the fields of the run's live status; those of its end with an `outcome`."""
        fields = write_run(self._context.run, self.records, self.current, self._context.progress)
        if outcome is None:
            return fields
        return fields | {
            "status": outcome.status,
            "completed_at": str(time.time()),
            "error_stage": outcome.error_stage or "",
            "error_message": outcome.error_message or "",
        }

    async def _end(self, stage: Stage, record: StageRecord) -> None:
        ended = replace(record, completed_at=time.time(), progress=self._context.progress)
        await self._save(stage, ended)

    async def _save(self, stage: Stage, record: StageRecord) -> None:
        run = self._context.run
        record = mask_record(record)
        self.records[stage] = record
        self._context.run = replace(run, stages=dict(self.records))
        if record.is_under_way:
            self.current = stage

        async def write() -> None:
            async with self._context.database.connect() as conn:
                await WorkRepository(conn).save_stage(run, stage, record)

        await through_outages(f"The record of run {run.identifier}", write)
        self._log(stage, record)

    def _log(self, stage: Stage, record: StageRecord) -> None:
        if record.is_under_way:
            return
        seconds = round((record.completed_at or 0) - (record.started_at or record.completed_at or 0), 3)
        run = self._context.run.identifier
        facts = {"run": run, "stage": stage.value, "status": record.status.value, "seconds": seconds}
        reason = record.error or record.skip_reason
        told = f": {reason}" if reason else ""
        _log.info("Run %s: %s %s in %.1f s%s", run, stage, record.status, seconds, told, extra=facts)
