"""SQL: one repository for each table, a plain class over a connection. A transaction belongs to the caller."""

from app.repositories.clips import ClipRepository
from app.repositories.generation_configs import GenerationConfigRepository
from app.repositories.moments import MomentRepository
from app.repositories.pipeline_history import PipelineHistoryRepository
from app.repositories.prompts import PromptRepository
from app.repositories.thumbnails import ThumbnailRepository
from app.repositories.transcripts import TranscriptRepository
from app.repositories.videos import VideoRepository

__all__ = [
    "ClipRepository",
    "GenerationConfigRepository",
    "MomentRepository",
    "PipelineHistoryRepository",
    "PromptRepository",
    "ThumbnailRepository",
    "TranscriptRepository",
    "VideoRepository",
]
