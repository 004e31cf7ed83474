"""What runs are asked for, and what a start answers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from app.api.schemas.common import Line, Text
from app.core.text import to_nfc
from app.models.run import RunRequest

_LONGEST_KEY = 64
_LARGEST_COUNT = 1000
_LONGEST_SECONDS = 86400


def _refuse_truth(kind: Literal["float_type", "int_type"]) -> BeforeValidator:
    """Refuse true and false, which Python takes for 1 and 0."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


_Number, _WholeNumber = _refuse_truth("float_type"), _refuse_truth("int_type")
_Length = Annotated[float, _Number, Field(gt=0, le=_LONGEST_SECONDS, allow_inf_nan=False, description="Seconds")]
_Count = Annotated[int, _WholeNumber, Field(gt=0, le=_LARGEST_COUNT)]
_Temperature = Annotated[float, _Number, Field(ge=0, le=2, allow_inf_nan=False)]
_ModelKey = Annotated[
    Line,
    Field(min_length=1, max_length=_LONGEST_KEY, description="Key of a registered model", examples=["qwen3_vl_fp8"]),
]
_VideoId = Annotated[Line, AfterValidator(to_nfc)]
_Text = Annotated[Text, AfterValidator(to_nfc)]
_Prompt = Annotated[
    _Text | None, Field(description="Instead of the built-in one, which null and an empty text mean", examples=[None])
]


class GenerateBody(BaseModel):
    """What moments are to be found. Further fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_prompt": "The best jokes", "min_moment_length": 60, "max_moment_length": 600,
                    "min_moments": 1, "max_moments": 10, "model": "qwen3_vl_fp8", "temperature": 0.7,
                }
            ]
        }
    )  # fmt: skip

    user_prompt: _Prompt = None
    min_moment_length: _Length = 60
    max_moment_length: _Length = 600
    min_moments: _Count = 1
    max_moments: _Count = 10
    model: _ModelKey = "minimax"
    temperature: _Temperature = 0.7

    def to_request(self) -> RunRequest:
        return RunRequest(
            generation_model=self.model,
            generation_temperature=self.temperature,
            generation_prompt=self.user_prompt or "",
            min_moment_length=self.min_moment_length,
            max_moment_length=self.max_moment_length,
            min_moments=self.min_moments,
            max_moments=self.max_moments,
        )


class RefineBody(BaseModel):
    """How a moment is to be refined. Further fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_prompt": None, "model": "qwen3_vl_fp8", "temperature": 0.7, "include_video": False},
            ]
        }
    )

    user_prompt: _Prompt = None
    model: _ModelKey = "minimax"
    temperature: _Temperature = 0.7
    include_video: bool = Field(False, description="Show the model the moment's clip")

    def to_request(self) -> RunRequest:
        return RunRequest(
            refinement_model=self.model,
            refinement_temperature=self.temperature,
            refinement_prompt=self.user_prompt or "",
            include_video_refinement=self.include_video,
            override_existing_refinement=False,
        )


class ClipsBody(BaseModel):
    """Which clips are to be cut."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"override_existing": True}, {}]})

    override_existing: bool = Field(True, description="Cut those again that are there")

    def to_request(self) -> RunRequest:
        return RunRequest(override_existing_clips=self.override_existing)


class PipelineBody(BaseModel):
    """What a full run is to do. `model` stands for both models and `temperature` for both temperatures, where they are
    not given by themselves. Further fields are ignored.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "minimax", "temperature": 0.7, "min_moment_length": 60, "max_moment_length": 120,
                    "min_moments": 3, "max_moments": 10, "refinement_parallel_workers": 2,
                    "include_video_refinement": True, "generation_prompt": None, "refinement_prompt": None,
                    "override_existing_moments": False, "override_existing_refinement": False,
                }
            ]
        }
    )  # fmt: skip

    model: _ModelKey | None = None
    generation_model: _ModelKey | None = None
    refinement_model: _ModelKey | None = None
    temperature: _Temperature = 0.7
    # Factories, because a default would be documented: without them `temperature` counts.
    generation_temperature: _Temperature = Field(default_factory=float)
    refinement_temperature: _Temperature = Field(default_factory=float)
    min_moment_length: Annotated[_Length, Field(ge=10, le=300)] = 60
    max_moment_length: Annotated[_Length, Field(ge=30, le=600)] = 120
    min_moments: Annotated[_Count, Field(le=50)] = 3
    max_moments: Annotated[_Count, Field(le=100)] = 10
    refinement_parallel_workers: Annotated[_Count, Field(le=5)] = Field(2, description="Moments refined at once")
    include_video_refinement: bool = Field(True, description="Where the refinement model can be shown clips")
    generation_prompt: _Prompt = None
    refinement_prompt: _Prompt = None
    override_existing_moments: bool = Field(True, description="Replace the moments that a model has found before")
    override_existing_refinement: bool = Field(True, description="Replace what was refined before")
    callback_url: str | None = Field(
        None,
        max_length=2000,
        description="http:// or https:// address that is told when the run has ended, by a signed POST",
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


class UrlBody(PipelineBody):
    """What a full run is to do, over a video of this server or over that of a URL: one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "video_url": "https://cdn.example/a/My Video_File.MP4?x=1", "force_download": False,
                    "model": "qwen3_vl_fp8", "temperature": 0.7, "min_moment_length": 60, "max_moment_length": 120,
                    "min_moments": 3, "max_moments": 10, "refinement_parallel_workers": 2,
                    "include_video_refinement": True,
                },
                {"video_id": "motivation"},
            ]
        }
    )  # fmt: skip

    video_id: _VideoId | None = Field(None, min_length=1, max_length=255, examples=["motivation"])
    video_url: str | None = Field(None, min_length=1, max_length=4096, description="http, https or gs")
    force_download: bool = Field(False, description="Make another video of a URL that is known")


class JobStartAnswer(BaseModel):
    message: str = Field(examples=["Audio processing started"])
    video_id: str = Field(examples=["demo-talk"])


class RefinementStartAnswer(JobStartAnswer):
    moment_id: str = Field(examples=["7621a017eec7482f"])
    include_video: bool


class StartAnswer(BaseModel):
    request_id: str = Field(description="Identifier of the run", examples=["pipeline:demo-talk:1795346931771"])
    video_id: str = Field(examples=["demo-talk"])
    status: str = Field(examples=["queued"])
    message: str = Field(examples=["Pipeline started successfully"])


class UrlStartAnswer(StartAnswer):
    download_required: bool
    source_url: str | None = Field(description="Null where the video was named by its id")
    is_cached: bool = Field(description="Whether the film is on this server")


class CancelAnswer(BaseModel):
    message: str = Field(examples=["Cancellation requested"])
    video_id: str = Field(examples=["demo-talk"])
