"""A row of `transcripts`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Transcript:
    """What is said in one video, word by word and segment by segment. Immutable: a new transcription is a new row."""

    id: int
    video_id: int
    full_text: str
    word_timestamps: list[dict[str, Any]]
    segment_timestamps: list[dict[str, Any]]
    language: str
    number_of_words: int | None
    number_of_segments: int | None
    transcription_service: str | None
    processing_time_seconds: float | None
    created_at: datetime
