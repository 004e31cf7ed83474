"""What was made of a video."""

from datetime import datetime

from pydantic import BaseModel, Field

from app.api.schemas.common import Seconds
from app.api.schemas.generation_configs import ConfigValues
from app.api.schemas.made import MomentValues, RunValues


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


class MomentNode(MomentValues):
    """A moment with what was refined from it, unless the parents of that lead back to it."""

    clip: ClipAnswer | None
    refinements: list["MomentNode"]


class ConfigNode(ConfigValues):
    """A generation config with the moments it made, but for those that stand below the moment they refine."""

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


class LineageAnswer(BaseModel):
    """A video and everything that was made of it, each row once. Moments are in the order of time, other lists in the
    order in which rows were added."""

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
    runs: list[RunValues] = Field(description="By their start")
