"""Moments."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.answers import Seconds
from app.core.validation import InputLine


class MomentAnswer(BaseModel):
    id: str = Field(examples=["7621a017eec7482f"])
    start_time: Seconds
    end_time: Seconds
    title: str
    is_refined: bool
    parent_id: str | None = Field(description="The original that this one was refined from, at once or step by step")
    model_name: str | None = Field(description="Null for a moment that was added by hand")
    generation_config: dict[str, Any] | None = Field(
        description="Null for a moment that was added by hand; unknown keys are left out",
        examples=[{"model": "qwen3_vl_fp8", "temperature": 0.7, "operation_type": "generation", "user_prompt": "…"}],
    )
    # Factories, because a default would be documented: these two are left out.
    score: int = Field(default_factory=int, description="0 to 10; left out where nobody gave one")
    scoring_model: str = Field(default_factory=str, description="Who gave the score; left out without one")


class NewMomentBody(BaseModel):
    """A moment to add by hand. Further fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"start_time": 0, "end_time": 5, "title": "Intro"}]})

    start_time: Seconds
    end_time: Seconds
    title: InputLine = Field(max_length=500)


class MomentEditBody(BaseModel):
    """What to change in a moment: any of these, and nothing else."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "minProperties": 1,
            "examples": [{"title": "Intro", "end_time": 7.5}, {"score": 8, "scoring_model": "judge"}, {"score": None}],
        },
    )

    # A factory, because a default would be documented: what is not given stays as it is.
    title: InputLine = Field(default_factory=str, max_length=500)
    start_time: Seconds = Field(default_factory=float)
    end_time: Seconds = Field(default_factory=float)
    score: int | None = Field(
        None, strict=True, ge=0, le=10, description="Together with `scoring_model`; null clears both"
    )
    scoring_model: InputLine | None = Field(None, min_length=1, max_length=100, description="Who gave the score")

    @model_validator(mode="after")
    def _changes_something_whole(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("At least one of title, start_time, end_time and score must be given")
        alone = "scoring_model" in self.model_fields_set and "score" not in self.model_fields_set
        if alone or (self.score is None) != (self.scoring_model is None):
            raise ValueError("score and scoring_model must be given together")
        return self


class DeletedMoment(BaseModel):
    moment: str = Field(examples=["7621a017eec7482f"])
    clip: bool = Field(description="Whether it had a clip, which went with it")
    thumbnail: bool = Field(description="Whether its clip had a thumbnail, which went with it")
    files: int = Field(description="Files of this server that were deleted; those of imported libraries stay")


class MomentDeletionAnswer(BaseModel):
    deleted: DeletedMoment
    orphaned: list[str] = Field(description="Refined moments that have no parent from now on")
    errors: list[str] | None = Field(description="Files that are still there; the same request tries again")
