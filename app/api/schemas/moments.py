"""Moments."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.common import Seconds


class MomentAnswer(BaseModel):
    id: str = Field(examples=["7621a017eec7482f"])
    start_time: Seconds
    end_time: Seconds
    title: str
    is_refined: bool
    parent_id: str | None = Field(description="The moment that this one refines")
    model_name: str | None = Field(description="Null for a moment that was added by hand")
    generation_config: dict[str, Any] | None = Field(
        description="Null for a moment that was added by hand; unknown keys are left out",
        examples=[{"model": "qwen3_vl_fp8", "temperature": 0.7, "operation_type": "generation", "user_prompt": "…"}],
    )


class NewMomentBody(BaseModel):
    """A moment to add by hand. Further fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"start_time": 0, "end_time": 5, "title": "Intro"}]})

    start_time: Seconds
    end_time: Seconds
    title: str = Field(max_length=500)
