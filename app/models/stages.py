"""The table of the stages of a run, which the server, the workers and the command line read.

A new stage is a member of `Stage`, its row in `STAGE_TABLE`, and a module of its name in `app/pipeline/stages`.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

STALLED_AFTER = 30.0  # seconds without a heartbeat of its worker: another may claim the stage
_DAY = 24 * 3600.0


class Stage(StrEnum):
    """The stages of a run, in the order of the pipeline."""

    DOWNLOAD = "download"
    AUDIO = "audio"
    AUDIO_UPLOAD = "audio_upload"
    TRANSCRIPT = "transcript"
    GENERATION = "generation"
    CLIPS = "clips"
    CLIP_UPLOAD = "clip_upload"
    REFINEMENT = "refinement"


class RunType(StrEnum):
    """The types of runs: every stage, or those that one button of a client starts."""

    FULL = "full"
    AUDIO = "audio_only"
    TRANSCRIPT = "transcript_only"
    MOMENTS = "moments_only"
    CLIPS = "clips_only"
    REFINEMENT = "refinement_only"  # of one moment, the run's subject


class WorkKind(StrEnum):
    """The kinds of stages that a worker can be started for; each has its own Redis stream."""

    DOWNLOAD = "download"
    AUDIO = "audio"
    TRANSCRIPTION = "transcription"
    GENERATION = "generation"
    CLIPS = "clips"
    REFINEMENT = "refinement"

    @property
    def stream_name(self) -> str:
        return f"videomoments:stages:{self}"

    @property
    def task_name(self) -> str:
        return f"videomoments.{self}"


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often a stage is attempted after a dead worker, and after a transient failure, and the seconds in between."""

    attempts: int = 3
    retries_failures: bool = True
    first_pause: float = 2.0
    longest_pause: float = 30.0

    def seconds_before_retry(self, attempt: int) -> float:
        """Return the seconds to wait after an attempt, counted from 1: doubled each time, with jitter."""
        longest: float = min(self.first_pause * 2 ** (attempt - 1), self.longest_pause)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  not a secret


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """The time limit of a stage: `seconds`, and `per_video_second` more for each second of the video."""

    seconds: float
    per_video_second: float = 0.0


@dataclass(frozen=True, slots=True)
class ExistingResults:
    """The results that a video has. Only generated originals count as moments; without any it has not all clips."""

    has_video_file: bool
    has_audio: bool
    has_transcript: bool
    has_moments: bool
    has_all_clips: bool


def _find_reason_for_no_moments(result: Mapping[str, Any]) -> str | None:
    if result.get("moments") != 0:
        return None
    return str(result.get("reason") or "No moments were found")


def _find_reason_for_no_refinement(result: Mapping[str, Any]) -> str | None:
    unchanged = result.get("unchanged", 0) + result.get("kept", 0)
    if not unchanged or unchanged != result.get("total"):
        return None
    return str(result.get("reason") or "Every moment stays as it is")


@dataclass(frozen=True, slots=True)
class StageDefinition:
    """The title, worker, limits and retries of a stage, whose code is `app/pipeline/stages/NAME.py`.

    That module has two functions: `skip_reason(context)` returns why there is nothing to do, or None, and
    `run_stage(context)` returns the result that is stored as JSON. Both are called again where another worker claims
    the stage, so both are idempotent.

    `title` begins log lines and progress bars. `run_types` are the types of runs with the stage; a full run has every
    stage. `limit_setting` names the setting that limits the stage over all workers.

    `counters` map those of `context.report_progress` to fields of the live status in Redis, `totals` keys of the result
    to fields of the run's outcome. `empty_reason` returns why a completed stage made nothing, which clients show as
    skipped. `has_results` decides whether a retry of the run can skip the stage; without it the stage is run again.
    """

    title: str
    kind: WorkKind
    time_limit: TimeLimit
    counters: Mapping[str, str]
    run_types: frozenset[RunType] = frozenset()
    limit_setting: str | None = None
    retry: RetryRule = RetryRule()
    totals: Mapping[str, str] = field(default_factory=dict)
    empty_reason: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    has_results: Callable[[ExistingResults], bool] | None = None


STAGE_TABLE: Mapping[Stage, StageDefinition] = {
    Stage.DOWNLOAD: StageDefinition(
        title="Download",
        kind=WorkKind.DOWNLOAD,
        time_limit=TimeLimit(1800.0),
        counters={
            "bytes_downloaded": "download_bytes",
            "total_bytes": "download_total",
            "percentage": "download_percentage",
        },
        has_results=lambda existing: existing.has_video_file,
    ),
    Stage.AUDIO: StageDefinition(
        title="Audio",
        kind=WorkKind.AUDIO,
        run_types=frozenset({RunType.AUDIO}),
        time_limit=TimeLimit(3600.0),  # the limit of one extraction
        limit_setting="limit_audio",
        counters={"percentage": "audio_percentage"},
        has_results=lambda existing: existing.has_audio,
    ),
    Stage.AUDIO_UPLOAD: StageDefinition(
        title="Audio upload",
        kind=WorkKind.AUDIO,
        run_types=frozenset({RunType.AUDIO}),
        time_limit=TimeLimit(3600.0),  # another machine may have to extract the audio again
        counters={
            "bytes_uploaded": "upload_bytes",
            "total_bytes": "upload_total",
            "percentage": "upload_percentage",
        },
        has_results=lambda existing: existing.has_audio,
    ),
    Stage.TRANSCRIPT: StageDefinition(
        title="Transcript",
        kind=WorkKind.TRANSCRIPTION,
        run_types=frozenset({RunType.TRANSCRIPT}),
        time_limit=TimeLimit(3600.0, per_video_second=1.0),
        limit_setting="limit_transcription",
        counters={"percentage": "transcript_percentage"},
        has_results=lambda existing: existing.has_transcript,
    ),
    Stage.GENERATION: StageDefinition(
        title="Moments",
        kind=WorkKind.GENERATION,
        run_types=frozenset({RunType.MOMENTS}),
        time_limit=TimeLimit(900.0, per_video_second=0.25),
        limit_setting="limit_generation",
        counters={"percentage": "generation_percentage"},
        totals={"moments": "moments"},
        empty_reason=_find_reason_for_no_moments,
        has_results=lambda existing: existing.has_moments,
    ),
    Stage.CLIPS: StageDefinition(
        title="Clips",
        kind=WorkKind.CLIPS,
        run_types=frozenset({RunType.CLIPS}),
        time_limit=TimeLimit(_DAY),  # each clip has its own limit; this one ends a stage that hangs
        limit_setting="limit_clips",
        counters={"total": "clips_total", "processed": "clips_processed", "failed": "clips_failed"},
        totals={"clips": "clips"},
        has_results=lambda existing: existing.has_all_clips,
    ),
    Stage.CLIP_UPLOAD: StageDefinition(
        title="Clip upload",
        kind=WorkKind.CLIPS,
        run_types=frozenset({RunType.CLIPS}),
        time_limit=TimeLimit(_DAY),
        counters={
            "current_clip": "clip_upload_current",
            "total_clips": "clip_upload_total_clips",
            "bytes_uploaded": "clip_upload_bytes",
            "total_bytes": "clip_upload_total_bytes",
            "percentage": "clip_upload_percentage",
        },
        has_results=lambda existing: existing.has_all_clips,
    ),
    Stage.REFINEMENT: StageDefinition(
        title="Refinement",
        kind=WorkKind.REFINEMENT,
        run_types=frozenset({RunType.REFINEMENT}),
        time_limit=TimeLimit(_DAY),  # each moment has its own limit; this one ends a stage that hangs
        limit_setting="limit_refinement",
        retry=RetryRule(retries_failures=False),  # each moment is retried by itself
        counters={
            "total": "refinement_total",
            "processed": "refinement_processed",
            "successful": "refinement_successful",
            "failed": "refinement_failed",
        },
        empty_reason=_find_reason_for_no_refinement,
    ),
}


def list_stages(run_type: RunType) -> tuple[Stage, ...]:
    return tuple(stage for stage, row in STAGE_TABLE.items() if run_type is RunType.FULL or run_type in row.run_types)
