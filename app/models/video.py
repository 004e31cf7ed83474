"""A row of `videos`."""

from dataclasses import dataclass
from datetime import datetime


def shown_title(identifier: str, title: str | None) -> str:
    """Return the stored title, or the identifier as words: `demo-talk` is "Demo Talk"."""
    return title or identifier.replace("-", " ").replace("_", " ").title()


@dataclass(frozen=True, slots=True)
class Video:
    """A video of the library. Everything else that is stored belongs to one."""

    id: int
    identifier: str
    source_url: str | None
    cloud_url: str
    title: str | None
    duration_seconds: float | None
    file_size_kb: int | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None
    created_at: datetime

    @property
    def is_audio_only(self) -> bool:
        """Whether its file is known to have audio and no picture."""
        return self.video_codec is None and self.audio_codec is not None
