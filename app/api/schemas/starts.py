"""What runs are asked for, and what a start answers."""

from pydantic import BaseModel, ConfigDict, Field

from app.core.validation import NormalizedLine
from app.models.runs import RunRequest
from app.services.run_options import Count, Length, ModelKey, PipelineOptions, Prompt, Temperature


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

    user_prompt: Prompt = None
    min_moment_length: Length = 60
    max_moment_length: Length = 600
    min_moments: Count = 1
    max_moments: Count = 10
    model: ModelKey = "minimax"
    temperature: Temperature = 0.7

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

    user_prompt: Prompt = None
    model: ModelKey = "minimax"
    temperature: Temperature = 0.7
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


class PipelineBody(PipelineOptions):
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

    video_id: NormalizedLine | None = Field(None, min_length=1, max_length=255, examples=["motivation"])
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
