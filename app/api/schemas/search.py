"""Search."""

from pydantic import BaseModel, Field

from app.api.answers import Seconds

_RANK = Field(description="Higher is better; comparable within one list of one search only")
_SNIPPET = Field(
    description="HTML: escaped text with <mark> around what was found", examples=["<mark>Machine</mark> learning"]
)


class JumpTarget(BaseModel):
    start_time: Seconds
    end_time: Seconds


class SearchHitAnswer(BaseModel):
    video_id: str = Field(examples=["demo-talk"])
    video_title: str = Field(examples=["Demo Talk"])
    rank: float = _RANK
    snippet: str = _SNIPPET
    segments: list[JumpTarget] = Field(description="Where it is said, in the order of the video; empty where unknown")


class MomentHitAnswer(BaseModel):
    video_id: str = Field(examples=["demo-talk"])
    video_title: str = Field(examples=["Demo Talk"])
    moment_id: str = Field(examples=["7621a017eec7482f"])
    title: str = Field(examples=["Machine learning"])
    snippet: str = _SNIPPET
    start_time: Seconds
    end_time: Seconds
    score: int | None = Field(ge=0, le=10, description="Null where it was not scored")
    rank: float = _RANK


class SearchAnswer(BaseModel):
    query: str
    hits: list[SearchHitAnswer] = Field(description="Videos in which it is said, the best first")
    moments: list[MomentHitAnswer] = Field(description="Moments whose titles say it, the best first")
    next_cursor: str | None = Field(description="For the next page of both lists; null where neither goes on")
