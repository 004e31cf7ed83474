"""Runs of the pipeline."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.api.answers import Seconds


class StageAnswer(BaseModel):
    status: Literal["pending", "waiting", "processing", "completed", "skipped", "failed"]
    started_at: float | None = Field(description="Seconds since 1970")
    completed_at: float | None = Field(description="Seconds since 1970")
    duration_seconds: float | None
    skipped: bool
    skip_reason: str | None
    reason: str | None = Field(description="What there is to know of a stage that was done, as why it found nothing")
    error: str | None
    progress: dict[str, int] | None


class RunMomentAnswer(BaseModel):
    id: str = Field(examples=["7621a017eec7482f"])
    title: str
    start_time: Seconds
    end_time: Seconds


class RunAnswer(BaseModel):
    request_id: str = Field(description="Empty where nothing has run", examples=["pipeline:demo-talk:1795347063363"])
    video_id: str = Field(examples=["demo-talk"])
    # Factories, because a default would be documented: what has never run has none of these.
    type: str = Field(default_factory=str, description="What the run does", examples=["full"])
    moment_id: str | None = Field(default_factory=str, description="The moment that the run refines")
    status: Literal["pending", "processing", "completed", "failed", "cancelled", "never_run", "unknown"]
    model: str = Field(
        description="What found the moments: the key of a model, or the local engine's name where that has answered "
        "for it; empty where it is not known, as the next two",
        examples=["minimax"],
    )
    generation_model: str = Field(description="The key that was asked for", examples=["minimax"])
    refinement_model: str = Field(examples=["qwen3_vl_fp8"])
    answered_by: dict[str, str] = Field(
        default_factory=dict,
        description="Who has really answered, by stage: a model that is not set up is answered for by this machine",
        examples=[{"transcript": "whisper-tiny.en", "generation": "local"}],
    )
    started_at: float = Field(description="Seconds since 1970", examples=[1795347063.36])
    completed_at: float | None = Field(description="Seconds since 1970", examples=[1795347066.26])
    total_duration_seconds: float | None = Field(description="Of a run that has completed", examples=[2.9])
    current_stage: str | None = Field(description="The last stage that is known to have run", examples=["refinement"])
    stages: dict[str, StageAnswer] = Field(description="The stages that are known of, in the order of the pipeline")
    error_stage: str | None
    error_message: str | None
    coarse_moments: list[RunMomentAnswer] = Field(description="The moments that the video has now")
    refined_moments: list[RunMomentAnswer]


class HistoryAnswer(BaseModel):
    video_id: str = Field(examples=["demo-talk"])
    runs: list[RunAnswer] = Field(description="The newest first")
    count: int = Field(ge=0, description="Runs in this answer")


class ActiveRunAnswer(BaseModel):
    request_id: str = Field(examples=["pipeline:demo-talk:1795347063363"])
    video_id: str = Field(examples=["demo-talk"])
    type: str = Field(examples=["full"])
    moment_id: str | None = Field(description="The moment that the run refines")
    status: Literal["pending", "processing"] = Field(description="`pending` while no worker has it")
    current_stage: str | None = Field(examples=["transcript"])
    attempts: int = Field(ge=0, description="Workers that have taken the run, one after the other")
    started_at: float = Field(description="When it was accepted, in seconds since 1970")


class ActiveRunsAnswer(BaseModel):
    runs: list[ActiveRunAnswer] = Field(description="The oldest first")
    count: int = Field(ge=0, description="Runs in this answer")


class FailedRunAnswer(BaseModel):
    request_id: str = Field(examples=["pipeline:demo-talk:1795347063363"])
    video_id: str = Field(examples=["demo-talk"])
    type: str = Field(examples=["full"])
    moment_id: str | None = Field(description="The moment that the run should refine")
    error_stage: str | None = Field(examples=["generation"])
    error_message: str | None
    attempts: int = Field(ge=0, description="Workers that have taken the run, one after the other")
    started_at: float = Field(description="Seconds since 1970")
    completed_at: float | None = Field(description="Seconds since 1970")
    raw_answer_length: int = Field(ge=0, description="Characters of the answer of a model that could not be used")


class FailedRunsAnswer(BaseModel):
    runs: list[FailedRunAnswer] = Field(description="Those first that were accepted last")
    count: int = Field(ge=0, description="Runs in this answer")


class FailedRunDetailsAnswer(FailedRunAnswer):
    request: dict[str, Any] = Field(description="What the run was asked for")
    raw_answer: str | None = Field(description="What a model answered that could not be used")
