"""Runs: the request of a run, the records of its stages, and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from app.models.stages import STAGE_TABLE, RunType, Stage, list_stages


class RunStatus(StrEnum):
    """The values of `pipeline_history.status`. A run that waits for a worker is running, too."""

    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The options of a run, as they are stored, and used again by a retry.

    Lengths are in seconds, models are keys of the registry, and an empty prompt means the built-in one.
    """

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
    """The states of a stage of a run. Clients are shown another record for a cancelled one."""

    PENDING = "pending"
    WAITING = "waiting"  # for a slot, or for a resource that other runs use
    PROCESSING = "processing"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """The stored state of one stage of a run. Times are seconds since 1970; `progress` are its last counters."""

    status: StageStatus
    started_at: float | None = None
    completed_at: float | None = None
    skip_reason: str | None = None
    error: str | None = None
    progress: Mapping[str, int] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_completed_or_skipped(self) -> bool:
        return self.status in (StageStatus.COMPLETED, StageStatus.SKIPPED)

    @property
    def has_been_reached(self) -> bool:
        """Whether the run has come to the stage, which may still wait for a worker."""
        return self.status not in (StageStatus.PENDING, StageStatus.SKIPPED)

    @property
    def is_waiting_or_processing(self) -> bool:
        return self.status in (StageStatus.WAITING, StageStatus.PROCESSING)

    @property
    def are_results_rolled_back(self) -> bool:
        return bool(self.result.get("is_undone"))


def next_stage(run_type: RunType, records: Mapping[Stage, StageRecord]) -> Stage:
    """Return the first stage of a run that is neither completed nor skipped; the last stage where all are."""
    stages = list_stages(run_type)
    return next(
        (stage for stage in stages if stage not in records or not records[stage].is_completed_or_skipped), stages[-1]
    )


def find_last_reached_stage(stage_records: Mapping[Stage, StageRecord]) -> Stage | None:
    begun = (stage for stage in reversed(Stage) if stage in stage_records and stage_records[stage].has_been_reached)
    return next(begun, None)


def convert_stage_record_for_clients(stage: Stage, record: StageRecord) -> StageRecord:
    """Return the record for clients, which know a cancelled stage and one without results as skipped."""
    reason = record.skip_reason
    if record.status is StageStatus.CANCELLED:
        reason = "Cancelled"
    elif record.are_results_rolled_back and record.status is StageStatus.COMPLETED:
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
    """A run whose current stage a worker has claimed, as its `owner`; `video` and `subject` are identifiers."""

    id: int
    identifier: str
    video_id: int
    video: str
    type: RunType
    subject: str
    request: RunRequest
    stages: Mapping[Stage, StageRecord]
    stage: Stage
    attempt: int  # counts from 1 in each stage
    owner: str
    started_at: float  # when the run was accepted, in seconds since 1970


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended; `moments` and `clips` are the numbers of new ones."""

    status: RunStatus
    error_stage: str | None = None
    error_message: str | None = None
    moments: int | None = None
    clips: int | None = None


def make_run_outcome_from_stages(records: Mapping[Stage, StageRecord]) -> RunOutcome:
    """Return the outcome of a run whose stages are all done: partial where a stage counted failures."""
    for stage, record in records.items():
        if failed := _get_integer_result_or_none(record, "failed"):
            title, total = STAGE_TABLE[stage].title, _get_integer_result_or_none(record, "total")
            reason = record.result.get("reason") or f"{title}: {failed} of {total or 'them'} failed"
            return make_run_outcome_with_totals(records, RunStatus.PARTIAL, stage, str(reason))
    # Clients show the reason of a skipped stage and of a run, not that of a completed stage.
    reasons = (str(record.result["reason"]) for record in records.values() if record.result.get("too_few"))
    return make_run_outcome_with_totals(records, RunStatus.COMPLETED, reason=next(reasons, None))


def make_run_outcome_with_totals(
    records: Mapping[Stage, StageRecord], status: RunStatus, stage: Stage | None = None, reason: str | None = None
) -> RunOutcome:
    totals = {
        total: _get_integer_result_or_none(record, key)
        for name, record in records.items()
        for key, total in STAGE_TABLE[name].totals.items()
    }
    return RunOutcome(status, stage, reason, **totals)


def _get_integer_result_or_none(record: StageRecord, name: str) -> int | None:
    value = record.result.get(name)
    return value if isinstance(value, int) else None
