"""Rows: one frozen dataclass for each table, its fields in the order of the columns. Times are naive UTC."""

from app.models.clip import Clip
from app.models.generation_config import GenerationConfig
from app.models.moment import Moment
from app.models.pipeline_history import PipelineRun
from app.models.prompt import Prompt
from app.models.thumbnail import Thumbnail
from app.models.transcript import Transcript
from app.models.video import Video

__all__ = ["Clip", "GenerationConfig", "Moment", "PipelineRun", "Prompt", "Thumbnail", "Transcript", "Video"]
