"""`/api/videos/{id}/…-status`: the status of single jobs, and whether a moment's clip can be sent to a model."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import Response

from app.api.answers import NOT_FOUND, Seconds, answer_dataclass, json_answer
from app.api.dependencies import MomentId, ResourcesDep, VideoId
from app.services.jobs import JobState, JobStatus, JobStatusReader
from app.services.media import get_clip_availability

router = APIRouter(prefix="/api/videos/{video_id}", tags=["status"], responses=NOT_FOUND)


@answer_dataclass
class JobStatusAnswer:
    status: Annotated[JobState, Field(examples=["completed"])]
    started_at: Annotated[str | None, Field(description="Seconds since 1970", examples=["1795346910.7080352"])]

    @classmethod
    def from_status(cls, status: JobStatus) -> "JobStatusAnswer":
        started_at = None if status.started_at is None else str(status.started_at)
        return JobStatusAnswer(status=status.state, started_at=started_at)


@answer_dataclass
class DetailedJobStatusAnswer(JobStatusAnswer):
    """The status of a job that has started."""

    elapsed_seconds: Annotated[float | None, Field(description="Null where it is unknown", examples=[3.1])]
    error: Annotated[str, Field(description="Empty where nothing went wrong", examples=["Audio extraction failed"])]


@answer_dataclass
class ClipJobStatusAnswer(JobStatusAnswer):
    """The status of a clip job that has counted its moments."""

    total_moments: Annotated[int, Field(ge=0)]
    processed_moments: Annotated[int, Field(ge=0, description="Including those that failed")]
    failed_moments: Annotated[int, Field(ge=0)]


@answer_dataclass
class ClipAvailabilityAnswer:
    available: Annotated[bool, Field(description="Whether there is a clip to refine the moment with")]
    clip_url: Annotated[
        str | None, Field(examples=["http://localhost:7005/moment_clips/talk_7621a017eec7482f_clip.mp4"])
    ]
    clip_duration: Seconds | None
    transcript_duration: Annotated[Seconds | None, Field(description="From 30 s before the moment to 30 s after it")]
    duration_match: Annotated[bool, Field(description="Whether the two differ by at most 0.5 s")]
    warning: Annotated[str | None, Field(examples=["Duration mismatch: clip=63.50s, transcript=60.10s (diff=3.40s)"])]
    model_supports_video: Annotated[bool, Field(description="Whether the refinement model accepts video")]


async def get_job_status_reader(resources: ResourcesDep) -> JobStatusReader:
    return JobStatusReader(resources.database, resources.redis, resources.storage)


JobStatusReaderDep = Annotated[JobStatusReader, Depends(get_job_status_reader)]


@router.get("/audio-extraction-status", response_model=DetailedJobStatusAnswer | JobStatusAnswer)
async def get_audio_status(resources: ResourcesDep, video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """The status of audio extraction: of an active or just ended job; without one, completed where the audio exists."""
    status = await statuses.get_audio_status(video_id)
    if status.state is JobState.COMPLETED:  # the client may load the list of videos next
        resources.audio.mark_outdated(video_id)
    return json_answer(_make_detailed_job_answer(status))


@router.get("/transcription-status", response_model=DetailedJobStatusAnswer | JobStatusAnswer)
async def get_transcription_status(video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """The status of a transcription; completed where there is a transcript."""
    return json_answer(_make_detailed_job_answer(await statuses.get_transcription_status(video_id)))


@router.get("/generation-status", response_model=JobStatusAnswer)
async def get_generation_status(video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """The status of moment generation; completed where a model has generated moments."""
    return json_answer(JobStatusAnswer.from_status(await statuses.get_generation_status(video_id)))


@router.get("/refinement-status/{moment_id}", response_model=JobStatusAnswer)
async def get_refinement_status(video_id: VideoId, moment_id: MomentId, statuses: JobStatusReaderDep) -> Response:
    """The status of a moment's refinement; completed where there is a refined moment."""
    return json_answer(JobStatusAnswer.from_status(await statuses.get_refinement_status(video_id, moment_id)))


@router.get("/clip-extraction-status", response_model=ClipJobStatusAnswer | JobStatusAnswer)
async def get_clip_status(video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """The status of clip extraction; completed where there is a clip."""
    status = await statuses.get_clips_status(video_id)
    shown = JobStatusAnswer.from_status(status)
    if status.progress is not None:
        shown = ClipJobStatusAnswer(
            **vars(shown),
            total_moments=status.progress.total,
            processed_moments=status.progress.processed,
            failed_moments=status.progress.failed,
        )
    return json_answer(shown)


@router.get("/moments/{moment_id}/video-availability", response_model=ClipAvailabilityAnswer)
async def get_video_availability(
    request: Request, video_id: VideoId, moment_id: MomentId, resources: ResourcesDep
) -> Response:
    """Whether a moment has a clip that can be sent to a model, and whether it matches the transcript."""
    found = await get_clip_availability(resources.database, resources.redis, resources.storage, video_id, moment_id)
    return json_answer(
        ClipAvailabilityAnswer(
            available=found.available,
            clip_url=f"{str(request.base_url).rstrip('/')}{found.clip_path}" if found.clip_path else None,
            clip_duration=found.clip_duration,
            transcript_duration=found.transcript_duration,
            duration_match=found.duration_match,
            warning=found.warning,
            model_supports_video=found.model_supports_video,
        )
    )


def _make_detailed_job_answer(status: JobStatus) -> JobStatusAnswer:
    plain = JobStatusAnswer.from_status(status)
    if status.state is JobState.NOT_STARTED:
        return plain
    return DetailedJobStatusAnswer(**vars(plain), elapsed_seconds=status.elapsed_seconds, error=status.error)
