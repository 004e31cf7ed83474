"""Search."""

from pydantic import BaseModel, Field

from app.api.schemas.common import Seconds


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
