"""Rows as frozen dataclasses, and what a run, its stages and its request are."""

from app.models.rows import Clip, GenerationConfig, Moment, PipelineRun, Prompt, Thumbnail, Transcript
from app.models.videos import Video

__all__ = ["Clip", "GenerationConfig", "Moment", "PipelineRun", "Prompt", "Thumbnail", "Transcript", "Video"]
