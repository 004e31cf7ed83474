"""Options of a full run, from HTTP and from other programs."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.core.validation import InputInteger, InputLine, InputNumber, NormalizedText
from app.models.runs import RunRequest

_LONGEST_KEY = 64
_LARGEST_COUNT = 1000
_LONGEST_SECONDS = 86400
Length = Annotated[InputNumber, Field(gt=0, le=_LONGEST_SECONDS, allow_inf_nan=False, description="Seconds")]
Count = Annotated[InputInteger, Field(gt=0, le=_LARGEST_COUNT)]
Temperature = Annotated[InputNumber, Field(ge=0, le=2, allow_inf_nan=False)]
ModelKey = Annotated[
    InputLine,
    Field(min_length=1, max_length=_LONGEST_KEY, description="Key of a registered model", examples=["qwen3_vl_fp8"]),
]
Prompt = Annotated[
    NormalizedText | None,
    Field(description="Instead of the built-in one, which null and an empty text mean", examples=[None]),
]


class PipelineOptions(BaseModel):
    """Options of a full run. `model` and `temperature` are the defaults of both stages; unknown fields are ignored."""

    model: ModelKey | None = None
    generation_model: ModelKey | None = None
    refinement_model: ModelKey | None = None
    temperature: Temperature = 0.7
    # Factories keep a default out of the documentation: `temperature` is the default.
    generation_temperature: Temperature = Field(default_factory=float)
    refinement_temperature: Temperature = Field(default_factory=float)
    min_moment_length: Annotated[Length, Field(ge=10, le=300)] = 60
    max_moment_length: Annotated[Length, Field(ge=30, le=600)] = 120
    min_moments: Annotated[Count, Field(le=50)] = 3
    max_moments: Annotated[Count, Field(le=100)] = 10
    refinement_parallel_workers: Annotated[Count, Field(le=5)] = Field(2, description="Moments refined at once")
    include_video_refinement: bool = Field(True, description="Where the refinement model can be shown clips")
    generation_prompt: Prompt = None
    refinement_prompt: Prompt = None
    override_existing_moments: bool = Field(True, description="Replace the moments that a model has found before")
    override_existing_refinement: bool = Field(True, description="Replace what was refined before")
    callback_url: str | None = Field(
        None,
        max_length=2000,
        description="http:// or https:// address that gets a signed POST when the run has ended",
        examples=[None],
    )

    def to_request(self) -> RunRequest:
        default = RunRequest()
        given = self.model_fields_set
        return RunRequest(
            generation_model=self.generation_model or self.model or default.generation_model,
            refinement_model=self.refinement_model or self.model or default.refinement_model,
            generation_temperature=(
                self.generation_temperature if "generation_temperature" in given else self.temperature
            ),
            refinement_temperature=(
                self.refinement_temperature if "refinement_temperature" in given else self.temperature
            ),
            min_moment_length=self.min_moment_length,
            max_moment_length=self.max_moment_length,
            min_moments=self.min_moments,
            max_moments=self.max_moments,
            generation_prompt=self.generation_prompt or "",
            refinement_prompt=self.refinement_prompt or "",
            refinement_parallel_workers=self.refinement_parallel_workers,
            include_video_refinement=self.include_video_refinement,
            override_existing_moments=self.override_existing_moments,
            override_existing_refinement=self.override_existing_refinement,
            override_existing_clips=self.override_existing_moments,
            callback_url=self.callback_url or None,
        )
