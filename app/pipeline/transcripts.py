"""The words of a stored transcript, and those around a moment."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.ai.protocols import Segment, Word
from app.models import Transcript
from app.models.rows import CLIP_PADDING_SECONDS


def list_words(transcript: Transcript) -> list[Word]:
    """Return the words in order of time; those of imported transcripts may be unsorted or lack times."""
    words = (
        Word(word["word"], word["start"], word["end"]) for word in _list_valid_parts(transcript.word_timestamps, "word")
    )
    return sorted(words, key=lambda word: word.start)


def list_timed_words(transcript: Transcript) -> list[Word]:
    """Return the words, or, from a service without word timestamps, each segment as one word."""
    return list_words(transcript) or [Word(part.text, part.start, part.end) for part in list_segments(transcript)]


def list_segments(transcript: Transcript) -> list[Segment]:
    segments = (
        Segment(each["text"], each["start"], each["end"])
        for each in _list_valid_parts(transcript.segment_timestamps, "text")
    )
    return sorted(segments, key=lambda segment: segment.start)


def find_speech_end(transcript: Transcript) -> float:
    ends = [word.end for word in list_words(transcript)] + [segment.end for segment in list_segments(transcript)]
    return max(ends, default=0.0)


def _list_valid_parts(parts: Iterable[Mapping[str, Any]], text: str) -> Iterable[Mapping[str, Any]]:
    return (
        part
        for part in parts
        if isinstance(part.get(text), str) and _is_time(part.get("start")) and _is_time(part.get("end"))
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class MomentWindow:
    """A span of the video in seconds, and the words that lie completely within it."""

    start: float
    end: float
    words: Sequence[Word]


def find_moment_window(words: Sequence[Word], start: float, end: float, duration_seconds: float | None) -> MomentWindow:
    """Return a moment with its padding, moved to word boundaries and limited to the video.

    It starts with the first word after the start of the padding, and ends with the first word that ends after the end
    of the padding, or else with the last word. A side on which that would cut into the moment, because nothing is
    said there, keeps the plain padding.
    """
    plain_start, plain_end = max(0.0, start - CLIP_PADDING_SECONDS), end + CLIP_PADDING_SECONDS
    first = min((word.start for word in words if word.start >= plain_start), default=plain_start)
    last = min((word.end for word in words if word.end >= plain_end), default=_find_last_end(words, plain_end))
    window_start = first if first <= start else plain_start
    window_end = last if last >= end else plain_end
    if duration_seconds is not None:
        window_start, window_end = min(window_start, duration_seconds), min(window_end, duration_seconds)
    inside = [word for word in words if window_start <= word.start and word.end <= window_end]
    return MomentWindow(window_start, window_end, inside)


def _find_last_end(words: Sequence[Word], default: float) -> float:
    return max((word.end for word in words), default=default)
