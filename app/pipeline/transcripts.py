"""The words of a stored transcript, and those around a moment."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.ai.protocols import Segment, Word
from app.models import Transcript

PADDING_SECONDS = 30.0  # on each side of a moment


def list_words(transcript: Transcript) -> list[Word]:
    """Return the words in order of time; those of older libraries may run backwards, or lack times."""
    found = (Word(word["word"], word["start"], word["end"]) for word in _usable(transcript.word_timestamps, "word"))
    return sorted(found, key=lambda word: word.start)


def list_timed_words(transcript: Transcript) -> list[Word]:
    """Return the words, or, where a service told none, its segments as if each were one."""
    return list_words(transcript) or [Word(part.text, part.start, part.end) for part in list_segments(transcript)]


def list_segments(transcript: Transcript) -> list[Segment]:
    """Return the segments in order of time."""
    found = (
        Segment(each["text"], each["start"], each["end"]) for each in _usable(transcript.segment_timestamps, "text")
    )
    return sorted(found, key=lambda segment: segment.start)


def end_of(transcript: Transcript) -> float:
    """Return the second at which the last word ends."""
    ends = [word.end for word in list_words(transcript)] + [segment.end for segment in list_segments(transcript)]
    return max(ends, default=0.0)


def _usable(parts: Iterable[Mapping[str, Any]], text: str) -> Iterable[Mapping[str, Any]]:
    return (
        part
        for part in parts
        if isinstance(part.get(text), str) and _is_time(part.get("start")) and _is_time(part.get("end"))
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds of the video, and the words that are said in between from their beginnings to their ends."""

    start: float
    end: float
    words: Sequence[Word]


def find_moment_window(words: Sequence[Word], start: float, end: float, duration_seconds: float | None) -> Window:
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
