"""A row of `thumbnails`."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The still picture of one video or of one clip."""

    id: int
    video_id: int | None
    clip_id: int | None
    cloud_url: str
    file_size_kb: int | None
    created_at: datetime
