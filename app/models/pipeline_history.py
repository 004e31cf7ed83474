"""A row of `pipeline_history`."""

from dataclasses import dataclass
from datetime import datetime


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
