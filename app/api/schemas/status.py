"""How far jobs are."""

from pydantic import BaseModel, Field

from app.api.answers import Seconds
from app.services.status import JobState

_STARTED_AT = Field(
    description="Seconds since 1970 as text; of a result whose job is forgotten, when it was made; null before a start",
    examples=["1795346910.7080352"],
)


class StatusAnswer(BaseModel):
    status: JobState = Field(examples=["completed"])
    started_at: str | None = _STARTED_AT


class DetailedStatusAnswer(BaseModel):
    """Before a start there are only the first two."""

    status: JobState = Field(examples=["completed"])
    started_at: str | None = _STARTED_AT
    elapsed_seconds: float | None = Field(None, description="Null where it is not known any more", examples=[3.1])
    error: str = Field("", description="Empty where nothing went wrong", examples=["Audio extraction failed"])


class ClipStatusAnswer(BaseModel):
    """The counters are there as soon as there is something to count."""

    status: JobState = Field(examples=["completed"])
    started_at: str | None = _STARTED_AT
    total_moments: int = Field(0, ge=0)
    processed_moments: int = Field(0, ge=0, description="Those that failed count too")
    failed_moments: int = Field(0, ge=0)


class AvailabilityAnswer(BaseModel):
    available: bool = Field(description="Whether there is a clip to refine the moment with")
    clip_url: str | None = Field(examples=["http://localhost:7005/moment_clips/demo-talk_7621a017eec7482f_clip.mp4"])
    clip_duration: Seconds | None
    transcript_duration: Seconds | None = Field(description="What is said from 30 s before the moment to 30 s after it")
    duration_match: bool = Field(description="Whether the two differ by at most 0.5 s")
    warning: str | None = Field(examples=["Duration mismatch: clip=63.50s, transcript=60.10s (diff=3.40s)"])
    model_supports_video: bool = Field(description="Whether the refinement model can be shown a clip")
