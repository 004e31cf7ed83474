"""Generation configs."""

from datetime import datetime

from pydantic import BaseModel, Field

from app.api.schemas.common import Seconds


class ConfigValues(BaseModel):
    """The parameters of a model call."""

    id: int = Field(examples=[3])
    transcript_id: int | None = Field(description="Null where it belongs to no transcript, or several share it")
    model: str = Field(examples=["qwen3_vl_fp8"])
    operation_type: str = Field(examples=["generation"])
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: Seconds | None
    max_moment_length: Seconds | None
    min_moments: int | None
    max_moments: int | None
    created_at: datetime


class GenerationConfigAnswer(ConfigValues):
    prompt_id: int = Field(examples=[7])
