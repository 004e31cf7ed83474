"""Runs: what is asked of one, the records of its stages, and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from app.models.stages import STAGE_TABLE, RunType, Stage, list_stages


class RunStatus(StrEnum):
    """What `pipeline_history.status` may be; a run that waits for a worker is running."""

    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run was asked for, as it is stored and as it is asked for again. Lengths are seconds, models keys of the
    registry, an empty prompt means the built-in one."""

    video_url: str | None = None
    transcription_model: str = "parakeet"
    generation_model: str = "qwen3_vl_fp8"
    refinement_model: str = "qwen3_vl_fp8"
    generation_temperature: float = 0.7
    refinement_temperature: float = 0.7
    min_moment_length: float = 60.0
    max_moment_length: float = 120.0
    min_moments: int = 3
    max_moments: int = 10
    generation_prompt: str = ""
    refinement_prompt: str = ""
    refinement_parallel_workers: int = 2
    include_video_refinement: bool = True
    override_existing_moments: bool = True
    override_existing_refinement: bool = True
    override_existing_clips: bool = True
    callback_url: str | None = None


class StageStatus(StrEnum):
    """What a stage can be in. Clients know no cancelled stage: `shown_record` returns the record for them."""

    PENDING = "pending"
    WAITING = "waiting"  # for its turn at what others use
    PROCESSING = "processing"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What is kept of one stage of a run. Times are seconds since 1970; `progress` and `result` are what it counted."""

    status: StageStatus
    started_at: float | None = None
    completed_at: float | None = None
    skip_reason: str | None = None
    error: str | None = None
    progress: Mapping[str, int] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether nobody needs to do it again in this run."""
        return self.status in (StageStatus.COMPLETED, StageStatus.SKIPPED)

    @property
    def has_begun(self) -> bool:
        """Whether a worker has begun the stage, or waits for a slot to begin it."""
        return self.status not in (StageStatus.PENDING, StageStatus.SKIPPED)

    @property
    def is_under_way(self) -> bool:
        """Whether a worker has the stage in its hands."""
        return self.status in (StageStatus.WAITING, StageStatus.PROCESSING)

    @property
    def is_undone(self) -> bool:
        """Whether what the stage has made went with a run that did not complete, and what it replaced came back."""
        return bool(self.result.get("is_undone"))


def next_stage(run_type: RunType, records: Mapping[Stage, StageRecord]) -> Stage:
    """Return the first stage of a run that is not done; the last one where each is."""
    stages = list_stages(run_type)
    return next((stage for stage in stages if stage not in records or not records[stage].is_done), stages[-1])


def last_begun_stage(records: Mapping[Stage, StageRecord]) -> Stage | None:
    """Return the last stage in the order of the pipeline that is neither pending nor skipped; None where none is."""
    begun = (stage for stage in reversed(Stage) if stage in records and records[stage].has_begun)
    return next(begun, None)


def shown_record(stage: Stage, record: StageRecord) -> StageRecord:
    """Return the record as clients read it: they show a reason only of a skipped stage, which has no times.

    A cancelled stage and one that made nothing are shown as skipped.
    """
    reason = record.skip_reason
    if record.status is StageStatus.CANCELLED:
        reason = "Cancelled"
    elif record.is_undone and record.status is StageStatus.COMPLETED:
        reason = "The moments from before were kept, because the run did not complete"
    elif record.status is StageStatus.COMPLETED:
        reason = STAGE_TABLE[stage].empty_reason(record.result)
        if reason is None:
            return record
    elif record.status is not StageStatus.SKIPPED:
        return record
    return replace(
        record, status=StageStatus.SKIPPED, started_at=None, completed_at=None, skip_reason=reason, error=None
    )


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run whose stage one worker has claimed. `video` and `subject` are identifiers, `stages` the records of the
    stages, `attempt` counts from 1 at each stage; the run was accepted at `started_at`, in seconds since 1970."""

    id: int
    identifier: str
    video_id: int
    video: str
    type: RunType
    subject: str
    request: RunRequest
    stages: Mapping[Stage, StageRecord]
    stage: Stage
    attempt: int
    owner: str
    started_at: float


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended."""

    status: RunStatus
    error_stage: str | None = None
    error_message: str | None = None
    moments: int | None = None
    clips: int | None = None


def conclude_run(records: Mapping[Stage, StageRecord]) -> RunOutcome:
    """Return how a run ends whose stages are all done: partial where a stage could not make all it was to make."""
    for stage, record in records.items():
        if failed := _read_count(record, "failed"):
            title, total = STAGE_TABLE[stage].title, _read_count(record, "total")
            reason = record.result.get("reason") or f"{title}: {failed} of {total or 'them'} failed"
            return make_outcome(records, RunStatus.PARTIAL, stage, str(reason))
    # Clients show the reason of a skipped stage and of a run, not that of a completed stage.
    reasons = (str(record.result["reason"]) for record in records.values() if record.result.get("too_few"))
    return make_outcome(records, RunStatus.COMPLETED, reason=next(reasons, None))


def make_outcome(
    records: Mapping[Stage, StageRecord], status: RunStatus, stage: Stage | None = None, reason: str | None = None
) -> RunOutcome:
    """Return an outcome with the totals that the stages have counted, as the table of stages says."""
    totals = {
        total: _read_count(record, key)
        for name, record in records.items()
        for key, total in STAGE_TABLE[name].totals.items()
    }
    return RunOutcome(status, stage, reason, **totals)


def _read_count(record: StageRecord, name: str) -> int | None:
    value = record.result.get(name)
    return value if isinstance(value, int) else None
