"""A row of `moments`."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Moment:
    """A part of a video worth watching, found by a model or added by hand; a refined one names its parent."""

    id: int
    identifier: str
    video_id: int
    start_time: float
    end_time: float
    title: str
    is_refined: bool
    parent_id: int | None
    generation_model: str | None
    generation_config_id: int | None
    score: int | None
    scoring_model: str | None
    scored_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def duration_seconds(self) -> float:
        return self.end_time - self.start_time
