"""What a model proposes, held against the video and the limits of the request."""

from collections.abc import Iterable, Sequence
from typing import Any

from app.ai.answers import read_seconds, read_title
from app.ai.protocols import FindRequest, FoundMoment, RefineRequest

_NOISE_SECONDS = 1e-6  # of sums of floats
_ROUNDING_SECONDS = 0.005 + _NOISE_SECONDS  # prompts tell times with two decimals


def read_moment(item: Any, request: FindRequest) -> FoundMoment | str:
    """Return the moment that an item of an answer is, or why it is none, in words for the model."""
    if not isinstance(item, dict):
        return "it is not an object"
    title = read_title(item.get("title"))
    start, end = read_seconds(item.get("start_time")), read_seconds(item.get("end_time"))
    if start is None or end is None:
        return "start_time and end_time are not both plain numbers of seconds"
    if not title:
        return "it has no title"
    return _broken_limit(start, end, request) or FoundMoment(max(start, 0.0), min(end, request.duration_seconds), title)


def _broken_limit(start: float, end: float, request: FindRequest) -> str:
    length = end - start
    if length <= 0:
        return "it does not end after it starts"
    if start < -_ROUNDING_SECONDS or end > request.duration_seconds + _ROUNDING_SECONDS:
        return f"it is not within the video, which takes {request.duration_seconds:.2f} seconds"
    if length < request.min_length - _NOISE_SECONDS:
        return f"it takes {length:.2f} seconds, and at least {request.min_length:.2f} are asked for"
    if length > request.max_length + _NOISE_SECONDS:
        return f"it takes {length:.2f} seconds, and at most {request.max_length:.2f} are asked for"
    return ""


def choose_moments(ranked: Iterable[FoundMoment], max_count: int) -> Sequence[FoundMoment]:
    """Return the best moments in order of time; of two that overlap, the one that comes first in `ranked` stays."""
    kept: list[FoundMoment] = []
    for moment in ranked:
        if len(kept) < max_count and not any(_overlap(moment, other) for other in kept):
            kept.append(moment)
    return sorted(kept, key=lambda moment: moment.start)


def _overlap(one: FoundMoment, other: FoundMoment) -> bool:
    return one.start < other.end - _NOISE_SECONDS and other.start < one.end - _NOISE_SECONDS


def place_times(start: float, end: float, request: RefineRequest) -> tuple[float, float] | str:
    """Return times of a window as those of the video, or why they cannot be, in words for the model."""
    length = request.window_end - request.window_start
    if end <= start:
        return "end_time is not above start_time"
    if start < -_ROUNDING_SECONDS or end > length + _ROUNDING_SECONDS:
        return f"the times are not within 0.00 and {length:.2f}"
    last = min(request.window_end, request.duration_seconds)
    placed = max(start, 0.0) + request.window_start, min(end + request.window_start, last)
    return placed if placed[0] < placed[1] else "the times are not within the video"
