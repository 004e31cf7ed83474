"""Moments and runs as what was made with a prompt and a config."""

from datetime import datetime

from pydantic import BaseModel, Field

from app.api.schemas.common import Seconds


class MomentValues(BaseModel):
    id: str = Field(examples=["7621a017eec7482f"])
    start_time: Seconds
    end_time: Seconds
    title: str
    is_refined: bool
    parent_id: str | None = Field(description="The moment that this one refines")
    model_name: str | None = Field(description="The name that the model gave itself")
    generation_config_id: int | None = Field(description="Null for a moment that was added by hand")
    score: int | None = Field(description="From 0 to 10")
    scoring_model: str | None
    scored_at: datetime | None
    created_at: datetime
    updated_at: datetime


class RunValues(BaseModel):
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


class MadeMomentAnswer(MomentValues):
    video_id: str = Field(examples=["motivation"])


class MadeRunAnswer(RunValues):
    video_id: str = Field(examples=["motivation"])
