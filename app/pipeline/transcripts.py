"""The words and segments of a stored transcript, and the words around a moment."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.ai.protocols import Segment, Word
from app.core.errors import StageFailed, VideoDeleted
from app.database import Connection
from app.models import PipelineRun, Transcript, Video
from app.models.rows import CLIP_PADDING_SECONDS
from app.models.runs import ClaimedRun
from app.repositories import RunRepository, TranscriptRepository, VideoRepository


async def get_run_video_and_transcript(conn: Connection, run: ClaimedRun) -> tuple[PipelineRun, Video, Transcript]:
    """Return the rows of a run, its video and its transcript. Raises `StageFailed` without a transcript."""
    row = await RunRepository(conn).get(run.id)
    video = await VideoRepository(conn).get(run.video_id)
    if row is None or video is None:
        raise VideoDeleted
    transcript = await TranscriptRepository(conn).get_by_video(run.video_id)
    if transcript is None:
        raise StageFailed("Transcript not found. Please generate transcript first.")
    return row, video, transcript


def list_words(transcript: Transcript) -> list[Word]:
    """Return the words with valid times, in order of start; imported transcripts may have others."""
    words = (
        Word(word["word"], word["start"], word["end"]) for word in _list_valid_parts(transcript.word_timestamps, "word")
    )
    return sorted(words, key=lambda word: word.start)


def list_timed_words(transcript: Transcript) -> list[Word]:
    """Return the words, or each segment as one word where the transcript has no word timestamps."""
    return list_words(transcript) or [Word(part.text, part.start, part.end) for part in list_segments(transcript)]


def list_segments(transcript: Transcript) -> list[Segment]:
    segments = (
        Segment(each["text"], each["start"], each["end"])
        for each in _list_valid_parts(transcript.segment_timestamps, "text")
    )
    return sorted(segments, key=lambda segment: segment.start)


def find_end_of_speech(transcript: Transcript) -> float:
    """Return the end of the last word or segment in seconds, 0 without any."""
    ends = [word.end for word in list_words(transcript)] + [segment.end for segment in list_segments(transcript)]
    return max(ends, default=0.0)


def _list_valid_parts(timestamps: Iterable[Mapping[str, Any]], text_key: str) -> Iterable[Mapping[str, Any]]:
    return (
        part
        for part in timestamps
        if isinstance(part.get(text_key), str) and _is_finite(part.get("start")) and _is_finite(part.get("end"))
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class MomentWindow:
    """A span of the video in seconds, and the words that lie completely within it."""

    start: float
    end: float
    words: Sequence[Word]


def find_moment_window(words: Sequence[Word], start: float, end: float, duration_seconds: float | None) -> MomentWindow:
    """Return a moment with 30 s on both sides, moved to word boundaries and limited to the video.

    The start moves forward to the first word, the end forward to the end of a word, or back to that of the last one.
    A side where that would cut into the moment stays as it is.
    """
    plain_start, plain_end = max(0.0, start - CLIP_PADDING_SECONDS), end + CLIP_PADDING_SECONDS
    first = min((word.start for word in words if word.start >= plain_start), default=plain_start)
    last_end = max((word.end for word in words), default=plain_end)
    last = min((word.end for word in words if word.end >= plain_end), default=last_end)
    window_start = first if first <= start else plain_start
    window_end = last if last >= end else plain_end
    if duration_seconds is not None:
        window_start, window_end = min(window_start, duration_seconds), min(window_end, duration_seconds)
    inside = [word for word in words if window_start <= word.start and word.end <= window_end]
    return MomentWindow(window_start, window_end, inside)
