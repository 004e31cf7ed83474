"""What was made of a video."""

from datetime import datetime

from pydantic import BaseModel, Field

from app.api.schemas.common import Seconds


class PictureAnswer(BaseModel):
    id: int
    file_size_kb: int | None
    created_at: datetime


class ClipAnswer(BaseModel):
    id: int
    start_time: Seconds
    end_time: Seconds
    padding_left: Seconds
    padding_right: Seconds
    file_size_kb: int | None
    format: str | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    created_at: datetime
    thumbnail: PictureAnswer | None


class MomentNode(BaseModel):
    """A moment with what was refined from it."""

    id: str = Field(examples=["7621a017eec7482f"])
    parent_id: str | None = Field(
        description="The moment that this one refines; it stands below it, unless that leads back to itself"
    )
    start_time: Seconds
    end_time: Seconds
    title: str
    is_refined: bool
    model_name: str | None
    generation_config_id: int | None = Field(description="Null for a moment that was added by hand")
    score: int | None = Field(description="From 0 to 10")
    scoring_model: str | None
    scored_at: datetime | None
    created_at: datetime
    updated_at: datetime
    clip: ClipAnswer | None
    refinements: list["MomentNode"]


class ConfigNode(BaseModel):
    """A generation config with the moments it made, but for those that stand below the moment they refine."""

    id: int
    transcript_id: int | None = Field(description="Null where other transcripts share it")
    model: str = Field(examples=["qwen3_vl_fp8"])
    operation_type: str = Field(examples=["generation"])
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: float | None = Field(description="seconds")
    max_moment_length: float | None = Field(description="seconds")
    min_moments: int | None
    max_moments: int | None
    created_at: datetime
    moments: list[MomentNode]


class PromptNode(BaseModel):
    id: int
    user_prompt: str
    system_prompt: str
    created_at: datetime
    configs: list[ConfigNode]


class TranscriptNode(BaseModel):
    """A transcript without its text."""

    id: int
    language: str
    number_of_words: int | None
    number_of_segments: int | None
    transcription_service: str | None
    processing_time_seconds: float | None
    created_at: datetime


class RunNode(BaseModel):
    id: str = Field(examples=["pipeline:motivation:1770552000000"])
    generation_config_id: int | None
    pipeline_type: str = Field(examples=["full"])
    status: str = Field(examples=["completed"])
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None
    created_at: datetime


class LineageAnswer(BaseModel):
    """A video and everything that was made of it, each row once. Lists are in the order in which rows were added."""

    id: str = Field(examples=["motivation"])
    title: str | None
    source_url: str | None
    duration_seconds: float | None
    file_size_kb: int | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None
    created_at: datetime
    thumbnail: PictureAnswer | None
    transcript: TranscriptNode | None
    prompts: list[PromptNode] = Field(description="The prompts that its moments and runs were made with")
    by_hand: list[MomentNode] = Field(description="Moments without a config, and what was refined from them")
    runs: list[RunNode] = Field(description="By their start")
