"""What a stage is to the loop that does one after the other."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.models.run import Stage
from app.pipeline.context import RunContext


class Resource(StrEnum):
    """What only so many runs may use at once, over all workers; the settings `limit_…` say how many."""

    AUDIO = "audio"
    TRANSCRIPTION = "transcription"
    GENERATION = "generation"
    CLIPS = "clips"
    REFINEMENT = "refinement"


@dataclass(frozen=True, slots=True)
class StageWork:
    """How a stage is done.

    `skip_reason` returns why there is nothing to do, or None. `work` returns what is kept of the result, as JSON; a
    `TransientFailure` that it raises is tried again, `attempts` times in all. Both are called again where a worker
    took the run over, so what is there already is not made twice. What `work` leaves when it is cancelled, it makes
    up for the next time. It has `limit_seconds`, and `limit_per_second` more for each second of the video.
    """

    stage: Stage
    limit_seconds: float
    skip_reason: Callable[[RunContext], Awaitable[str | None]]
    work: Callable[[RunContext], Awaitable[Mapping[str, Any]]]
    resource: Resource | None = None
    attempts: int = 1
    limit_per_second: float = 0.0
