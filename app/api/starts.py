"""What starts a run: each button of a client, and whole pipelines. All answer at once."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import (
    Checkouts,
    LiveState,
    MediaStorage,
    MomentId,
    NamedVideoId,
    ResourcesDep,
    RunIdentifier,
    UnknownVideoId,
    VideoId,
)
from app.api.schemas.starts import (
    CancelAnswer,
    ClipsBody,
    GenerateBody,
    JobStartAnswer,
    PipelineBody,
    RefineBody,
    RefinementStartAnswer,
    StartAnswer,
    UrlBody,
    UrlStartAnswer,
)
from app.core.errors import InvalidInput
from app.services.run_requests import RunRequests
from app.services.runs import RunRetries, cancel_pipeline

_IN_THE_WAY: dict[int | str, dict[str, Any]] = {
    404: {"model": Error, "description": "There is no such video, moment or run"},
    409: {"model": Error, "description": "A run works on the video, and this one would be in its way"},
}
_NOT_READY: dict[int | str, dict[str, Any]] = {
    **_IN_THE_WAY,
    400: {"model": Error, "description": "What the run needs is not there, or what it would make is there already"},
}
_NO_MODEL: dict[int | str, dict[str, Any]] = {
    503: {"model": Error, "description": "The model is not registered, or a server behind this one cannot answer now"},
}

videos = APIRouter(prefix="/api/videos/{video_id}", tags=["starts"])
pipelines = APIRouter(prefix="/api", tags=["pipeline"])


async def get_starts(
    resources: ResourcesDep, database: Checkouts, storage: MediaStorage, redis: LiveState
) -> RunRequests:
    """Give what accepts runs."""
    return RunRequests(database, storage, redis, resources.settings, resources.notifier.notify)


RunRequestsDep = Annotated[RunRequests, Depends(get_starts)]


async def get_retries(database: Checkouts, storage: MediaStorage, starts: RunRequestsDep) -> RunRetries:
    """Give what runs ended runs again."""
    return RunRetries(database, storage, starts)


RunRetriesDep = Annotated[RunRetries, Depends(get_retries)]


@videos.post("/process-audio", response_model=JobStartAnswer, responses=_NOT_READY)
async def process_audio(video_id: VideoId, starts: RunRequestsDep) -> Response:
    """Start to extract a video's sound."""
    await starts.start_audio(video_id)
    return _answer_job("Audio processing started", video_id)


@videos.post("/process-transcript", response_model=JobStartAnswer, responses={**_NOT_READY, **_NO_MODEL})
async def process_transcript(video_id: VideoId, starts: RunRequestsDep) -> Response:
    """Start to transcribe a video's sound."""
    await starts.start_transcript(video_id)
    return _answer_job("Transcript generation started", video_id)


@videos.post("/generate-moments", response_model=JobStartAnswer, responses={**_NOT_READY, **_NO_MODEL})
async def generate_moments(video_id: VideoId, body: GenerateBody, starts: RunRequestsDep) -> Response:
    """Start to look for a video's moments."""
    await starts.start_generation(video_id, body.to_request())
    return _answer_job("Moment generation started", video_id)


@videos.post("/extract-clips", response_model=JobStartAnswer, responses=_NOT_READY)
async def extract_clips(video_id: VideoId, body: ClipsBody, starts: RunRequestsDep) -> Response:
    """Start to cut the clips of a video's moments."""
    await starts.start_clips(video_id, body.to_request())
    return _answer_job("Clip extraction started", video_id)


@videos.post("/moments/{moment_id}/refine", response_model=RefinementStartAnswer, responses={**_NOT_READY, **_NO_MODEL})
async def refine_moment(video_id: VideoId, moment_id: MomentId, body: RefineBody, starts: RunRequestsDep) -> Response:
    """Start to refine a moment."""
    await starts.start_refinement(video_id, moment_id, body.to_request())
    more = {"moment_id": moment_id, "include_video": body.include_video}
    return _answer_job("Moment refinement started", video_id, **more)


@pipelines.post("/pipeline/{video_id}/start", response_model=StartAnswer, responses={**_NOT_READY, **_NO_MODEL})
async def start_pipeline(video_id: NamedVideoId, body: PipelineBody, starts: RunRequestsDep) -> Response:
    """Start a full run: from a video to its refined moments and their clips."""
    return answer_run(await starts.start_full(video_id, body.to_request()), video_id)


@pipelines.post("/pipeline/{video_id}/retry", response_model=StartAnswer, responses=_NOT_READY)
async def retry_pipeline(
    video_id: NamedVideoId,
    retries: RunRetriesDep,
    request_id: Annotated[
        RunIdentifier | None,
        Query(max_length=100, description="Which run of the video; the newest full one where it is not given"),
    ] = None,
) -> Response:
    """Start an ended run again as it was asked for. What a run that did not succeed has finished is not done again."""
    return answer_run((await retries.retry(video_id, request_id)).request_id, video_id)


@pipelines.post(
    "/pipeline/{video_id}/cancel",
    response_model=CancelAnswer,
    responses={400: {"model": Error, "description": "Nothing runs"}},
)
async def cancel_runs(video_id: UnknownVideoId, database: Checkouts, redis: LiveState) -> Response:
    """Cancel whatever runs over a video, or waits to."""
    await cancel_pipeline(database, redis, video_id)
    return json_answer({"message": "Cancellation requested", "video_id": video_id})


@pipelines.post("/generate_moments", response_model=UrlStartAnswer, responses={**_NOT_READY, **_NO_MODEL})
async def generate_from_url(body: UrlBody, starts: RunRequestsDep) -> Response:
    """Start a full run over the video of a URL, or over one that is here."""
    match body:
        case UrlBody(video_id=str(video), video_url=None):
            started = await starts.start_full(video, body.to_request())
            return answer_run(started, video, download_required=False, source_url=None, is_cached=True)
        case UrlBody(video_id=None, video_url=str(url)):
            run = await starts.start_from_url(url, body.to_request(), force=body.force_download)
            film = run.resolved
            more = {"download_required": film.download_required, "source_url": url, "is_cached": film.is_cached}
            return answer_run(run.request_id, film.video, **more)
    raise InvalidInput("Either video_id or video_url must be given")


def answer_run(request_id: str, video: str, **more: object) -> Response:
    """Answer with a run that was accepted."""
    message = "Pipeline started successfully"
    return json_answer({"request_id": request_id, "video_id": video, "status": "queued", "message": message, **more})


def _answer_job(message: str, video: str, **more: object) -> Response:
    return json_answer({"message": message, "video_id": video, **more})
