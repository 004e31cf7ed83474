"""The bodies of requests and answers, as they are documented and validated."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(allow_inf_nan=False, description="seconds")]


class Error(BaseModel):
    """Every error."""

    detail: str = Field(examples=["Video not found"])


class VideoAnswer(BaseModel):
    id: str = Field(examples=["demo-talk"])
    filename: str = Field(examples=["demo-talk.mp4"])
    title: str = Field(examples=["Demo Talk"])
    thumbnail_url: str | None = Field(
        description="A path of this server", examples=["/static/thumbnails/demo-talk.jpg"]
    )
    has_audio: bool = Field(description="Whether it can be transcribed")
    has_transcript: bool


class MomentAnswer(BaseModel):
    id: str = Field(examples=["7621a017eec7482f"])
    start_time: Seconds
    end_time: Seconds
    title: str
    is_refined: bool
    parent_id: str | None = Field(description="The moment that this one refines")
    model_name: str | None = Field(description="Null for a moment that was added by hand")
    generation_config: dict[str, Any] | None = Field(
        description="Null for a moment that was added by hand; unknown keys are left out",
        examples=[{"model": "qwen3_vl_fp8", "temperature": 0.7, "operation_type": "generation", "user_prompt": "…"}],
    )


class NewMomentBody(BaseModel):
    """A moment to add by hand. Further fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"start_time": 0, "end_time": 5, "title": "Intro"}]})

    start_time: Seconds
    end_time: Seconds
    title: str = Field(max_length=500)


class Word(BaseModel):
    word: str
    start: Seconds
    end: Seconds


class Segment(BaseModel):
    text: str
    start: Seconds
    end: Seconds
    word_count: int | None = None


class TranscriptMetadata(BaseModel):
    total_segments: int
    total_words: int
    duration: float | None = Field(description="End of the last segment, in seconds")


class TranscriptAnswer(BaseModel):
    transcription: str
    processing_time: float | None
    word_timestamps: list[Word]
    segment_timestamps: list[Segment]
    metadata: TranscriptMetadata


class JumpTarget(BaseModel):
    start_time: Seconds
    end_time: Seconds


class SearchHitAnswer(BaseModel):
    video_id: str
    video_title: str
    rank: float = Field(description="Higher is better; comparable within one answer only")
    snippet: str = Field(description="HTML: escaped text with <mark> around what was found")
    segments: list[JumpTarget] = Field(description="Where it is said, in the order of the video; empty where unknown")


class SearchAnswer(BaseModel):
    query: str
    hits: list[SearchHitAnswer]


class HealthAnswer(BaseModel):
    status: str = Field(examples=["healthy"])
    redis: str = Field(examples=["connected"])
    database: str = Field(examples=["connected"])


class ServiceAnswer(BaseModel):
    message: str = Field(examples=["Video Moments API"])
    version: str
