"""A row of `clips`."""

from dataclasses import dataclass
from datetime import datetime

CLIP_PADDING_SECONDS = 30.0  # on each side of a moment: in its clip, and in what a refinement model is shown


@dataclass(frozen=True, slots=True)
class Clip:
    """The video file cut out for one moment, with its padding."""

    id: int
    moment_id: int
    video_id: int
    cloud_url: str
    start_time: float
    end_time: float
    padding_left: float
    padding_right: float
    file_size_kb: int | None
    format: str | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    created_at: datetime

    @property
    def duration_seconds(self) -> float:
        return self.end_time - self.start_time
