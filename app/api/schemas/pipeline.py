"""Runs of the pipeline."""

from typing import Literal

from pydantic import BaseModel, Field

from app.api.schemas.common import Seconds


class StageAnswer(BaseModel):
    status: Literal["pending", "processing", "completed", "skipped", "failed"]
    started_at: float | None = Field(description="Seconds since 1970")
    completed_at: float | None = Field(description="Seconds since 1970")
    duration_seconds: float | None
    skipped: bool
    skip_reason: str | None
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
    status: Literal["pending", "processing", "completed", "failed", "cancelled", "never_run", "unknown"]
    model: str = Field(description="Empty where it is not known, as the next two", examples=["minimax"])
    generation_model: str = Field(examples=["minimax"])
    refinement_model: str = Field(examples=["qwen3_vl_fp8"])
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
