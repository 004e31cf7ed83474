"""Videos."""

from pydantic import BaseModel, Field


class VideoAnswer(BaseModel):
    id: str = Field(examples=["demo-talk"])
    filename: str = Field(examples=["demo-talk.mp4"])
    title: str = Field(examples=["Demo Talk"])
    thumbnail_url: str | None = Field(
        description="A path of this server", examples=["/static/thumbnails/demo-talk.jpg"]
    )
    has_audio: bool = Field(description="Whether it can be transcribed")
    has_transcript: bool
