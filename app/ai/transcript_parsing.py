"""Parsing of the answers of transcription services: harmless errors are repaired, others refused."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from app.ai.model_output import parse_seconds
from app.ai.protocols import Segment, Word
from app.ai.sentences import interpolate_word_times, make_caption_segments
from app.core.errors import ModelAnswerInvalid
from app.core.text import clean_text

# Services round times to their frames.
_TOLERANCE_SECONDS = 1.0
# Times may run backwards by the overlap of a service's internal chunks; more is a lost offset.
_BACKWARDS_SECONDS = 15.0
_MAX_RAW_LENGTH = 100_000  # characters


@dataclass(frozen=True, slots=True)
class TranscriptionAnswerFields:
    """Field names in a service's answer."""

    text: str
    words: str
    segments: str


class UnusableTranscript(Exception):
    """No transcript, or times outside of the audio; the text says why."""


@dataclass(frozen=True, slots=True)
class TimedTranscript:
    """Words and segments in order of time inside the audio; words do not overlap."""

    words: Sequence[Word]
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)


def parse_transcription_answer(
    name: str, answer: Any, fields: TranscriptionAnswerFields, duration_seconds: float
) -> tuple[str, TimedTranscript]:
    """Return the text and the timed words and segments of an answer. Raises `ModelAnswerInvalid`.

    `name` is the service's name for errors. An empty text is the transcript of audio without speech.
    """
    try:
        text = _parse_text(answer, fields.text)
        timeline = parse_timed_transcript(answer.get(fields.words), answer.get(fields.segments), duration_seconds)
        if text and not timeline.segments:
            raise UnusableTranscript("it has no times")
    except UnusableTranscript as error:
        raw = clean_text(json.dumps(answer))[:_MAX_RAW_LENGTH]
        raise ModelAnswerInvalid(f"The transcript of {name} cannot be used: {error}", raw) from None
    return text or timeline.text, timeline


def _parse_text(answer: Any, name: str) -> str:
    if not isinstance(answer, dict):
        raise UnusableTranscript("it is not an object")
    if answer.get("error"):
        raise UnusableTranscript("it reports an error")
    if not isinstance(answer.get(name), str):
        raise UnusableTranscript(f"it has no {name}, which must be a string")
    return clean_text(answer[name]).strip()


def parse_timed_transcript(words: Any, segments: Any, duration_seconds: float) -> TimedTranscript:
    """Parse lists of words and segments; times are seconds. Raises `UnusableTranscript`.

    Without words, those of the segments are interpolated by their lengths: good enough to search, not to cut at.
    Without segments, captions are made of the words.
    """
    read_words = [
        Word(text, start, end)
        for text, start, end in _parse_timed_items(words, "word", duration_seconds, may_lack_times=True)
    ]
    read_segments = [
        Segment(text, start, end)
        for text, start, end in _parse_timed_items(segments, "text", duration_seconds, may_lack_times=False)
    ]
    if not read_words:
        read_words = list(interpolate_word_times(read_segments))
    return TimedTranscript(sort_words(read_words), read_segments or make_caption_segments(read_words))


def sort_words(words: Iterable[Word]) -> list[Word]:
    ordered = sorted(words, key=lambda word: (word.start, word.end))
    for index, (word, following) in enumerate(pairwise(ordered)):
        if word.end > following.start:
            ordered[index] = replace(word, end=following.start)
    return ordered


def _parse_timed_items(
    items: Any, name: str, duration: float, *, may_lack_times: bool
) -> Iterator[tuple[str, float, float]]:
    if items is None:
        return
    if not isinstance(items, list):
        raise UnusableTranscript(f"its {name}s are not a list")
    read = [_parse_timed_item(item, name) for item in items]
    timed = [each for each in read if each[1] is not None]
    if len(timed) < len(read) and (not may_lack_times or not timed):
        if may_lack_times:
            return
        raise UnusableTranscript(f"a {name} has no times")
    _require_ascending_times([start for _, start, _ in timed if start is not None])
    for text, start, end in sorted(_interpolate_missing_times(read), key=lambda each: each[1]):
        if text:
            yield (text, *_clamp_or_reject_times(start, end, duration))


def _parse_timed_item(item: Any, name: str) -> tuple[str, float | None, float | None]:
    if not isinstance(item, dict) or not isinstance(item.get(name), str):
        raise UnusableTranscript(f"a {name} is not an object with its text")
    start, end = parse_seconds(item.get("start")), parse_seconds(item.get("end"))
    text = " ".join(clean_text(item[name]).split())
    return (text, start, end) if start is not None and end is not None else (text, None, None)


def _require_ascending_times(starts: Sequence[float]) -> None:
    for earlier, later in pairwise(starts):
        if later < earlier - _BACKWARDS_SECONDS:
            raise UnusableTranscript(f"its times run backwards, from {earlier:.2f} to {later:.2f} seconds")


def _interpolate_missing_times(
    items: Sequence[tuple[str, float | None, float | None]],
) -> Iterator[tuple[str, float, float]]:
    """Yield all items with times; untimed ones fill the gap between their neighbours."""
    before = 0.0
    waiting: list[str] = []
    for text, start, end in items:
        if start is None or end is None:
            waiting.append(text)
            continue
        yield from ((untimed, before, max(before, start)) for untimed in waiting)
        waiting = []
        yield text, start, end
        before = max(start, end)
    yield from ((untimed, before, before) for untimed in waiting)


def _clamp_or_reject_times(start: float, end: float, duration: float) -> tuple[float, float]:
    if start < -_TOLERANCE_SECONDS or start > duration + _TOLERANCE_SECONDS:
        raise UnusableTranscript(f"it has words at {start:.2f} seconds, and the audio takes {duration:.2f}")
    start = min(max(start, 0.0), duration)
    return start, min(max(end, start), duration)
