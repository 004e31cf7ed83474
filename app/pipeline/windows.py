"""The part of a video around a moment that its clip shows and that a model refines it in."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.ai.protocols import Word

PADDING_SECONDS = 30.0  # on each side of a moment


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds of the video, and the words that are said in between from their beginnings to their ends."""

    start: float
    end: float
    words: Sequence[Word]


def find_window(words: Sequence[Word], start: float, end: float, duration_seconds: float | None) -> Window:
    """Return the padded window of a moment that cuts no word in two and does not leave the video.

    It begins with the first word behind the padding's beginning and ends with the first one that ends behind the
    padding's end, or else with the last one, in whatever order the words are. A side on which that would cut off a
    part of the moment, because nothing is said there, is padded without regard to words.
    """
    plain_start, plain_end = max(0.0, start - PADDING_SECONDS), end + PADDING_SECONDS
    first = min((word.start for word in words if word.start >= plain_start), default=plain_start)
    last = min((word.end for word in words if word.end >= plain_end), default=_last_end(words, plain_end))
    window_start = first if first <= start else plain_start
    window_end = last if last >= end else plain_end
    if duration_seconds is not None:
        window_start, window_end = min(window_start, duration_seconds), min(window_end, duration_seconds)
    inside = [word for word in words if window_start <= word.start and word.end <= window_end]
    return Window(window_start, window_end, inside)


def _last_end(words: Sequence[Word], otherwise: float) -> float:
    return max((word.end for word in words), default=otherwise)
