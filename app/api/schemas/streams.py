"""Addresses of media."""

from pydantic import BaseModel, Field


class MediaAddress(BaseModel):
    url: str = Field(
        description="Where the file can be read", examples=["http://localhost:7005/api/videos/talk/stream"]
    )
    expires_in_seconds: int | None = Field(description="How long the address stays good; null: as long as the file")
