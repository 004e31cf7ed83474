"""`/api/videos/{id}/…-status`: how far jobs are, and what a refinement can use."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import Checkouts, LiveState, MediaStorage, MomentId, ResourcesDep, VideoId
from app.api.schemas.status import AvailabilityAnswer, ClipStatusAnswer, DetailedStatusAnswer, StatusAnswer
from app.services.media import check_clip_availability
from app.services.status import JobState, JobStatus, JobStatusReader

router = APIRouter(prefix="/api/videos/{video_id}", tags=["status"], responses={404: {"model": Error}})


async def get_statuses(database: Checkouts, redis: LiveState, storage: MediaStorage) -> JobStatusReader:
    """Give the statuses of jobs."""
    return JobStatusReader(database, redis, storage)


JobStatusReaderDep = Annotated[JobStatusReader, Depends(get_statuses)]


@router.get("/audio-extraction-status", response_model=DetailedStatusAnswer)
async def get_audio_status(resources: ResourcesDep, video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """How far the extraction of a video's sound is; completed where the sound is there."""
    status = await statuses.get_audio(video_id)
    if status.state is JobState.COMPLETED:  # whoever asks may load the list of videos next
        resources.audio.invalidate(video_id)
    return json_answer(_detailed(status))


@router.get("/transcription-status", response_model=DetailedStatusAnswer)
async def get_transcription_status(video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """How far a video's transcription is; completed where there is a transcript."""
    return json_answer(_detailed(await statuses.get_transcription(video_id)))


@router.get("/generation-status", response_model=StatusAnswer)
async def get_generation_status(video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """How far the search for moments is; completed where a model has found some."""
    return json_answer(_plain(await statuses.get_generation(video_id)))


@router.get("/refinement-status/{moment_id}", response_model=StatusAnswer)
async def get_refinement_status(video_id: VideoId, moment_id: MomentId, statuses: JobStatusReaderDep) -> Response:
    """How far the refinement of a moment is; completed where there is a refined one."""
    return json_answer(_plain(await statuses.get_refinement(video_id, moment_id)))


@router.get("/clip-extraction-status", response_model=ClipStatusAnswer)
async def get_clip_status(video_id: VideoId, statuses: JobStatusReaderDep) -> Response:
    """How far the cutting of a video's clips is; completed where there is a clip."""
    status = await statuses.get_clips(video_id)
    answer = _plain(status)
    if status.progress is not None:
        answer["total_moments"] = status.progress.total
        answer["processed_moments"] = status.progress.processed
        answer["failed_moments"] = status.progress.failed
    return json_answer(answer)


@router.get("/moments/{moment_id}/video-availability", response_model=AvailabilityAnswer)
async def get_video_availability(
    request: Request,
    video_id: VideoId,
    moment_id: MomentId,
    database: Checkouts,
    redis: LiveState,
    storage: MediaStorage,
) -> Response:
    """Whether a moment has a clip that a model can be shown, and whether it shows what the transcript says."""
    found = await check_clip_availability(database, redis, storage, video_id, moment_id)
    return json_answer(
        {
            "available": found.available,
            "clip_url": f"{str(request.base_url).rstrip('/')}{found.clip_path}" if found.clip_path else None,
            "clip_duration": found.clip_duration,
            "transcript_duration": found.transcript_duration,
            "duration_match": found.duration_match,
            "warning": found.warning,
            "model_supports_video": found.model_supports_video,
        }
    )


def _plain(status: JobStatus) -> dict[str, Any]:
    started_at = None if status.started_at is None else str(status.started_at)
    return {"status": status.state, "started_at": started_at}


def _detailed(status: JobStatus) -> dict[str, Any]:
    if status.state is JobState.NOT_STARTED:
        return _plain(status)
    return {**_plain(status), "elapsed_seconds": status.elapsed_seconds, "error": status.error}
