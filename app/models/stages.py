"""The stages of a run: one row of `STAGE_TABLE` each, read by the server, the workers and the command line.

A new stage is a member of `Stage`, its row here, and the module that the row names.
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
    """What a run does: every stage, or those of one button of a client."""

    FULL = "full"
    AUDIO = "audio_only"
    TRANSCRIPT = "transcript_only"
    MOMENTS = "moments_only"
    CLIPS = "clips_only"
    REFINEMENT = "refinement_only"  # of one moment, the run's subject


class WorkKind(StrEnum):
    """The kinds of work that a worker can be started for; each has a stream of messages of its own.

    Consecutive stages of one kind stay with the worker that has their files.
    """

    DOWNLOAD = "download"
    AUDIO = "audio"
    TRANSCRIPTION = "transcription"
    GENERATION = "generation"
    CLIPS = "clips"
    REFINEMENT = "refinement"

    @property
    def stream(self) -> str:
        return f"videomoments:stages:{self}"

    @property
    def task(self) -> str:
        """The name of its messages' task, by which they are counted and traced."""
        return f"videomoments.{self}"


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often a stage is attempted before its run fails, and how long it pauses before it is retried, in seconds.

    An attempt ends with a transient failure, where `retries_failures`, or with the death of its worker.
    """

    attempts: int = 3
    retries_failures: bool = True
    first_pause: float = 2.0
    longest_pause: float = 30.0

    def pause(self, attempt: int) -> float:
        """Return the pause after the attempt, counted from 1: doubled with each, and spread so that stages that failed
        together do not return together."""
        longest: float = min(self.first_pause * 2 ** (attempt - 1), self.longest_pause)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  not a secret


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long a stage may take: `seconds`, and `per_video_second` more for each second of the video."""

    seconds: float
    per_video_second: float = 0.0


@dataclass(frozen=True, slots=True)
class ExistingResults:
    """What a video has now. Moments are generated originals; `has_all_clips` is false where there are no originals."""

    has_video_file: bool
    has_audio: bool
    has_transcript: bool
    has_moments: bool
    has_all_clips: bool


def _never_empty(result: Mapping[str, Any]) -> str | None:
    return None


def _explain_no_moments(result: Mapping[str, Any]) -> str | None:
    if result.get("moments") != 0:
        return None
    return str(result.get("reason") or "No moments were found")


def _explain_no_refinement(result: Mapping[str, Any]) -> str | None:
    same = result.get("unchanged", 0) + result.get("kept", 0)
    if not same or same != result.get("total"):
        return None
    return str(result.get("reason") or "Every moment stays as it is")


@dataclass(frozen=True, slots=True)
class StageDefinition:
    """What is known of a stage without its code.

    `title` begins sentences and progress bars. `run_types` are the buttons that include the stage; a full run includes
    every stage. `module` has the functions `skip_reason(context)`, which returns why there is nothing to do, or None,
    and `run_stage(context)`, which returns what is stored of the result, as JSON. Both are called again where another
    worker claims the stage, so neither makes anything twice; `run_stage` cleans up on its next call what it leaves when
    it is cancelled. `limit_setting` names the setting that limits how many run at once over all workers.

    `counters` are the fields of the live status in Redis by the counters of `context.report`, `totals` the fields of
    the run's outcome by the keys of the result. `empty_reason` returns why a result is that of a stage that made
    nothing, which clients show as skipped. `has_results` decides whether a retry can use what an earlier run made;
    without it the stage is always done again.
    """

    title: str
    kind: WorkKind
    module: str
    time_limit: TimeLimit
    counters: Mapping[str, str]
    run_types: frozenset[RunType] = frozenset()
    limit_setting: str | None = None
    retry: RetryRule = RetryRule()
    totals: Mapping[str, str] = field(default_factory=dict)
    empty_reason: Callable[[Mapping[str, Any]], str | None] = _never_empty
    has_results: Callable[[ExistingResults], bool] | None = None


STAGE_TABLE: Mapping[Stage, StageDefinition] = {
    Stage.DOWNLOAD: StageDefinition(
        title="Download",
        kind=WorkKind.DOWNLOAD,
        module="app.pipeline.stages.download",
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
        module="app.pipeline.stages.audio",
        time_limit=TimeLimit(3600.0),  # as long as one extraction may take
        limit_setting="limit_audio",
        counters={"percentage": "audio_percentage"},
        has_results=lambda existing: existing.has_audio,
    ),
    Stage.AUDIO_UPLOAD: StageDefinition(
        title="Audio upload",
        kind=WorkKind.AUDIO,
        run_types=frozenset({RunType.AUDIO}),
        module="app.pipeline.stages.audio_upload",
        time_limit=TimeLimit(3600.0),  # another machine extracts the audio again
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
        module="app.pipeline.stages.transcript",
        time_limit=TimeLimit(3600.0, per_video_second=1.0),
        limit_setting="limit_transcription",
        counters={"percentage": "transcript_percentage"},
        has_results=lambda existing: existing.has_transcript,
    ),
    Stage.GENERATION: StageDefinition(
        title="Moments",
        kind=WorkKind.GENERATION,
        run_types=frozenset({RunType.MOMENTS}),
        module="app.pipeline.stages.generation",
        time_limit=TimeLimit(900.0, per_video_second=0.25),
        limit_setting="limit_generation",
        counters={"percentage": "generation_percentage"},
        totals={"moments": "moments"},
        empty_reason=_explain_no_moments,
        has_results=lambda existing: existing.has_moments,
    ),
    Stage.CLIPS: StageDefinition(
        title="Clips",
        kind=WorkKind.CLIPS,
        run_types=frozenset({RunType.CLIPS}),
        module="app.pipeline.stages.clips",
        time_limit=TimeLimit(_DAY),  # each clip has its own limit; this one ends a stage that hangs all the same
        limit_setting="limit_clips",
        counters={"total": "clips_total", "processed": "clips_processed", "failed": "clips_failed"},
        totals={"clips": "clips"},
        has_results=lambda existing: existing.has_all_clips,
    ),
    Stage.CLIP_UPLOAD: StageDefinition(
        title="Clip upload",
        kind=WorkKind.CLIPS,
        run_types=frozenset({RunType.CLIPS}),
        module="app.pipeline.stages.clip_upload",
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
        module="app.pipeline.stages.refinement",
        time_limit=TimeLimit(_DAY),  # each moment has its own limit; this one ends a stage that hangs all the same
        limit_setting="limit_refinement",
        retry=RetryRule(retries_failures=False),  # the refinement of each moment has retries of its own
        counters={
            "total": "refinement_total",
            "processed": "refinement_processed",
            "successful": "refinement_successful",
            "failed": "refinement_failed",
        },
        empty_reason=_explain_no_refinement,
    ),
}


def list_stages(run_type: RunType) -> tuple[Stage, ...]:
    """Return the stages of a run, in the order of the pipeline."""
    return tuple(stage for stage, row in STAGE_TABLE.items() if run_type is RunType.FULL or run_type in row.run_types)
