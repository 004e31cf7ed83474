"""Requests for runs: single jobs, whole pipelines, retries and cancellations. All answer at once."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.answers import Error, Responses, answer_dataclass, json_answer
from app.api.dependencies import AnyVideoId, MomentId, NamedVideoId, ResourcesDep, RunIdentifier, VideoId
from app.core.errors import InvalidInput
from app.core.validation import NormalizedLine
from app.models.runs import RunRequest
from app.services.queue import cancel_runs_of_video
from app.services.run_requests import Count, Length, ModelKey, PipelineOptions, Prompt, RunStarter, Temperature
from app.services.runs import RunRetrier

NOT_READY: Responses = {
    400: {"model": Error, "description": "The run's input is missing, or its result exists already"},
    404: {"model": Error, "description": "There is no such video, moment or run"},
    409: {"model": Error, "description": "Another run of the video conflicts with this one"},
}
_NO_MODEL: Responses = {503: {"model": Error, "description": "The model is not registered, or a server is away"}}

videos = APIRouter(prefix="/api/videos/{video_id}", tags=["starts"])
pipelines = APIRouter(prefix="/api", tags=["pipeline"])


class GenerateMomentsBody(BaseModel):
    """Which moments to generate. Further fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_prompt": "The best jokes", "max_moments": 10, "model": "qwen3_vl_fp8"}]}
    )

    user_prompt: Prompt = None
    min_moment_length: Length = 60
    max_moment_length: Length = 600
    min_moments: Count = 1
    max_moments: Count = 10
    model: ModelKey = "minimax"
    temperature: Temperature = 0.7

    def to_run_request(self) -> RunRequest:
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
    """How to refine a moment. Further fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "qwen3_vl_fp8", "include_video": False}]})

    user_prompt: Prompt = None
    model: ModelKey = "minimax"
    temperature: Temperature = 0.7
    include_video: bool = Field(False, description="Send the moment's clip to the model")

    def to_run_request(self) -> RunRequest:
        return RunRequest(
            refinement_model=self.model,
            refinement_temperature=self.temperature,
            refinement_prompt=self.user_prompt or "",
            include_video_refinement=self.include_video,
            override_existing_refinement=False,
        )


class ExtractClipsBody(BaseModel):
    """Which clips to cut."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"override_existing": True}, {}]})

    override_existing: bool = Field(True, description="Cut existing clips again")

    def to_run_request(self) -> RunRequest:
        return RunRequest(override_existing_clips=self.override_existing)


class FullRunBody(PipelineOptions):
    """Options of a full run; `model` and `temperature` are for both models. Further fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "minimax", "max_moments": 10, "override_existing_moments": False}]}
    )


class RunFromUrlBody(FullRunBody):
    """Options of a full run for a stored video or for the video of a URL: one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"video_url": "https://cdn.example/a/My Video_File.MP4?x=1", "model": "qwen3_vl_fp8"},
                {"video_id": "motivation"},
            ]
        }
    )

    video_id: NormalizedLine | None = Field(None, min_length=1, max_length=255, examples=["motivation"])
    video_url: str | None = Field(None, min_length=1, max_length=4096, description="http, https or gs")
    force_download: bool = Field(False, description="Download a known URL again, as another video")


@answer_dataclass
class JobStartAnswer:
    message: Annotated[str, Field(examples=["Audio processing started"])]
    video_id: Annotated[str, Field(examples=["demo-talk"])]


@answer_dataclass
class RefinementStartAnswer(JobStartAnswer):
    moment_id: Annotated[str, Field(examples=["7621a017eec7482f"])]
    include_video: bool


@answer_dataclass
class RunStartAnswer:
    request_id: Annotated[str, Field(examples=["pipeline:demo-talk:1795346931771"])]
    video_id: Annotated[str, Field(examples=["demo-talk"])]
    status: Annotated[str, Field(examples=["queued"])] = "queued"
    message: Annotated[str, Field(examples=["Pipeline started successfully"])] = "Pipeline started successfully"


@answer_dataclass
class RunStartFromUrlAnswer(RunStartAnswer):
    download_required: bool
    source_url: Annotated[str | None, Field(description="Null where the video was named by its id")]
    is_cached: Annotated[bool, Field(description="Whether the video's file is stored on this server")]


@answer_dataclass
class RunCancellationAnswer:
    message: Annotated[str, Field(examples=["Cancellation requested"])]
    video_id: Annotated[str, Field(examples=["demo-talk"])]


async def get_run_starter(resources: ResourcesDep) -> RunStarter:
    return RunStarter(
        resources.database, resources.storage, resources.redis, resources.settings, resources.notifier.notify
    )


RunStarterDep = Annotated[RunStarter, Depends(get_run_starter)]


async def get_run_retrier(resources: ResourcesDep, starter: RunStarterDep) -> RunRetrier:
    return RunRetrier(resources.database, resources.storage, starter)


RunRetrierDep = Annotated[RunRetrier, Depends(get_run_retrier)]


@videos.post("/process-audio", response_model=JobStartAnswer, responses=NOT_READY)
async def process_audio(video_id: VideoId, starter: RunStarterDep) -> Response:
    """Start a run that extracts a video's audio."""
    await starter.start_audio_extraction(video_id)
    return json_answer(JobStartAnswer(message="Audio processing started", video_id=video_id))


@videos.post("/process-transcript", response_model=JobStartAnswer, responses={**NOT_READY, **_NO_MODEL})
async def process_transcript(video_id: VideoId, starter: RunStarterDep) -> Response:
    """Start a run that transcribes a video's audio."""
    await starter.start_transcription(video_id)
    return json_answer(JobStartAnswer(message="Transcript generation started", video_id=video_id))


@videos.post("/generate-moments", response_model=JobStartAnswer, responses={**NOT_READY, **_NO_MODEL})
async def generate_moments(video_id: VideoId, body: GenerateMomentsBody, starter: RunStarterDep) -> Response:
    """Start a run that generates a video's moments."""
    await starter.start_moment_generation(video_id, body.to_run_request())
    return json_answer(JobStartAnswer(message="Moment generation started", video_id=video_id))


@videos.post("/extract-clips", response_model=JobStartAnswer, responses=NOT_READY)
async def extract_clips(video_id: VideoId, body: ExtractClipsBody, starter: RunStarterDep) -> Response:
    """Start a run that cuts the clips of a video's moments."""
    await starter.start_clip_extraction(video_id, body.to_run_request())
    return json_answer(JobStartAnswer(message="Clip extraction started", video_id=video_id))


@videos.post("/moments/{moment_id}/refine", response_model=RefinementStartAnswer, responses={**NOT_READY, **_NO_MODEL})
async def refine_moment(video_id: VideoId, moment_id: MomentId, body: RefineBody, starter: RunStarterDep) -> Response:
    """Start a run that refines a moment."""
    await starter.start_moment_refinement(video_id, moment_id, body.to_run_request())
    return json_answer(
        RefinementStartAnswer(
            message="Moment refinement started",
            video_id=video_id,
            moment_id=moment_id,
            include_video=body.include_video,
        )
    )


@pipelines.post("/pipeline/{video_id}/start", response_model=RunStartAnswer, responses={**NOT_READY, **_NO_MODEL})
async def start_pipeline(video_id: NamedVideoId, body: FullRunBody, starter: RunStarterDep) -> Response:
    """Start a full run: from a video to its refined moments and their clips."""
    started = await starter.start_full_run(video_id, body.to_run_request())
    return json_answer(RunStartAnswer(request_id=started, video_id=video_id))


@pipelines.post("/pipeline/{video_id}/retry", response_model=RunStartAnswer, responses=NOT_READY)
async def retry_pipeline(
    video_id: NamedVideoId,
    retrier: RunRetrierDep,
    request_id: Annotated[
        RunIdentifier | None, Query(max_length=100, description="Without it, the newest full run of the video")
    ] = None,
) -> Response:
    """Start an ended run again with the same options. Finished stages of an unsuccessful run are not repeated."""
    run = await retrier.retry_run_of_video(video_id, request_id)
    return json_answer(RunStartAnswer(request_id=run.request_id, video_id=video_id))


@pipelines.post(
    "/pipeline/{video_id}/cancel",
    response_model=RunCancellationAnswer,
    responses={400: {"model": Error, "description": "Nothing runs"}},
)
async def cancel_runs(video_id: AnyVideoId, resources: ResourcesDep) -> Response:
    """Cancel the running and waiting runs of a video."""
    await cancel_runs_of_video(resources.database, resources.redis, video_id)
    return json_answer(RunCancellationAnswer(message="Cancellation requested", video_id=video_id))


@pipelines.post("/generate_moments", response_model=RunStartFromUrlAnswer, responses={**NOT_READY, **_NO_MODEL})
async def generate_from_url(body: RunFromUrlBody, starter: RunStarterDep) -> Response:
    """Start a full run for the video of a URL, or for a stored one."""
    match body:
        case RunFromUrlBody(video_id=str(video), video_url=None):
            started, is_cached = await starter.start_full_run(video, body.to_run_request()), True
        case RunFromUrlBody(video_id=None, video_url=str(url)):
            started, found = await starter.start_full_run_from_url(
                url, body.to_run_request(), force=body.force_download
            )
            video, is_cached = found.video, found.is_cached
        case _:
            raise InvalidInput("Either video_id or video_url must be given")
    return json_answer(
        RunStartFromUrlAnswer(
            request_id=started,
            video_id=video,
            download_required=not is_cached,
            source_url=body.video_url,
            is_cached=is_cached,
        )
    )
