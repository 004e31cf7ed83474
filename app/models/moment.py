"""A row of `moments`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

K = TypeVar("K")


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


def find_root(moment: K, parents: Mapping[K, K | None]) -> K | None:
    """Return the moment at which the parents of a moment end, by id or identifier; None where they form a circle.

    Imported moments may be refinements of refinements, and of each other.
    """
    seen: set[K] = set()
    while (parent := parents.get(moment)) is not None:
        if moment in seen:
            return None
        seen.add(moment)
        moment = parent
    return moment
