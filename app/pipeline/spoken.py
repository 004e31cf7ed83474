"""What a stored transcript says, as models are asked about it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from app.ai.protocols import Segment, Word
from app.models import Transcript


def words_of(transcript: Transcript) -> list[Word]:
    """Return the words in order of time; those of older libraries may run backwards, or lack times."""
    found = (Word(word["word"], word["start"], word["end"]) for word in _usable(transcript.word_timestamps, "word"))
    return sorted(found, key=lambda word: word.start)


def timed_words_of(transcript: Transcript) -> list[Word]:
    """Return the words, or, where a service told none, its segments as if each were one."""
    return words_of(transcript) or [Word(part.text, part.start, part.end) for part in segments_of(transcript)]


def segments_of(transcript: Transcript) -> list[Segment]:
    """Return the segments in order of time."""
    found = (
        Segment(each["text"], each["start"], each["end"]) for each in _usable(transcript.segment_timestamps, "text")
    )
    return sorted(found, key=lambda segment: segment.start)


def end_of(transcript: Transcript) -> float:
    """Return the second at which the last word ends."""
    ends = [word.end for word in words_of(transcript)] + [segment.end for segment in segments_of(transcript)]
    return max(ends, default=0.0)


def _usable(parts: Iterable[Mapping[str, Any]], text: str) -> Iterable[Mapping[str, Any]]:
    return (
        part
        for part in parts
        if isinstance(part.get(text), str) and _is_time(part.get("start")) and _is_time(part.get("end"))
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
