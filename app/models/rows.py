"""Rows: one frozen dataclass for each table, its fields in the order of the columns. Times are naive UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class Transcript:
    """What is said in one video, word by word and segment by segment. Immutable: a new transcription is a new row."""

    id: int
    video_id: int
    full_text: str
    word_timestamps: list[dict[str, Any]]
    segment_timestamps: list[dict[str, Any]]
    language: str
    number_of_words: int | None
    number_of_segments: int | None
    transcription_service: str | None
    processing_time_seconds: float | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words a model was asked with, stored once however often they are used. Immutable."""

    id: int
    user_prompt: str
    system_prompt: str
    prompt_hash: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The parameters of a model call and its prompt, shared by all calls that used the same ones."""

    id: int
    prompt_id: int
    transcript_id: int | None
    model: str
    operation_type: str
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: float | None
    max_moment_length: float | None
    min_moments: int | None
    max_moments: int | None
    config_hash: str
    created_at: datetime


K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Moment:
    """A part of a video worth watching, found by a model or added by hand; a refined one names its parent."""

    id: int
    identifier: str
    video_id: int
    start_time: float
    end_time: float
    title: str
    is_refined: bool
    parent_id: int | None
    generation_model: str | None
    generation_config_id: int | None
    score: int | None
    scoring_model: str | None
    scored_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def duration_seconds(self) -> float:
        return self.end_time - self.start_time


def find_root(moment: K, parents: Mapping[K, K | None]) -> K | None:
    """Return the moment at which the parents of a moment end, by id or identifier; None where they form a circle.

    Imported moments may be refinements of refinements, and of each other.
    """
    seen: set[K] = set()
    while (parent := parents.get(moment)) is not None:
        if moment in seen:
            return None
        seen.add(moment)
        moment = parent
    return moment


CLIP_PADDING_SECONDS = 30.0  # on each side of a moment: in its clip, and in what a refinement model is shown


@dataclass(frozen=True, slots=True)
class Clip:
    """The video file cut out for one moment, with its padding."""

    id: int
    moment_id: int
    video_id: int
    cloud_url: str
    start_time: float
    end_time: float
    padding_left: float
    padding_right: float
    file_size_kb: int | None
    format: str | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    created_at: datetime

    @property
    def duration_seconds(self) -> float:
        return self.end_time - self.start_time


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The still picture of one video or of one clip."""

    id: int
    video_id: int | None
    clip_id: int | None
    cloud_url: str
    file_size_kb: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """One run of the pipeline over a video: what was asked, how far it came, how it ended."""

    id: int
    identifier: str
    video_id: int
    generation_config_id: int | None
    pipeline_type: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None
    created_at: datetime
