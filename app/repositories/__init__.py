"""SQL: one module for each subject, with plain classes over a connection. The caller begins the transactions."""

from app.repositories.clips import ClipRepository
from app.repositories.moments import MomentRepository
from app.repositories.provenance import GenerationConfigRepository, PromptRepository
from app.repositories.runs import RunRepository
from app.repositories.thumbnails import ThumbnailRepository
from app.repositories.transcripts import TranscriptRepository
from app.repositories.videos import VideoRepository

__all__ = [
    "ClipRepository",
    "GenerationConfigRepository",
    "MomentRepository",
    "PromptRepository",
    "RunRepository",
    "ThumbnailRepository",
    "TranscriptRepository",
    "VideoRepository",
]
