"""Transcripts."""

from pydantic import BaseModel, Field

from app.api.answers import Seconds


class Word(BaseModel):
    word: str
    start: Seconds
    end: Seconds


class Segment(BaseModel):
    text: str
    start: Seconds
    end: Seconds
    word_count: int | None = None


class TranscriptMetadata(BaseModel):
    total_segments: int
    total_words: int
    duration: float | None = Field(description="End of the last segment, in seconds")


class TranscriptAnswer(BaseModel):
    transcription: str
    processing_time: float | None
    word_timestamps: list[Word]
    segment_timestamps: list[Segment]
    metadata: TranscriptMetadata
