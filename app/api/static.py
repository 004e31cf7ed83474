"""`/static/…` and `/moment_clips/…`: media at the addresses that it had before there was an API for it."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.api import transcripts
from app.api.dependencies import Checkouts, MediaStorage, VideoId
from app.api.media_answer import MediaAnswer, media_responses
from app.api.read_route import ReadRoute, VideoReaderDep
from app.api.schemas.transcripts import TranscriptAnswer
from app.api.streams import CACHE_CONTROL
from app.core.media_types import UNKNOWN_TYPE
from app.services import media
from app.storage import find_audio_file

router = APIRouter(prefix="/static", tags=["static"])
reads = APIRouter(prefix="/static", tags=["static"], route_class=ReadRoute)
clips = APIRouter(prefix="/moment_clips", tags=["static"])

ClipName = Annotated[str, Path(description="Video, moment, `clip`", examples=["motivation_7621a017eec7482f_clip.mp4"])]


@router.head("/audios/{video_id}.wav", include_in_schema=False)
@router.get("/audios/{video_id}.wav", response_class=Response, responses=media_responses("audio/wav", UNKNOWN_TYPE))
async def get_static_audio(video_id: VideoId, reads: VideoReaderDep, storage: MediaStorage) -> Response:
    """The sound that was extracted from a video for its transcription."""
    await reads.find_video_files(video_id)  # a name of no video must not find a file that happens to be called so
    url = await find_audio_file(storage, video_id)
    return MediaAnswer(storage, storage.open_async(url), cache_control=CACHE_CONTROL)


@reads.head("/transcripts/{video_id}.json", include_in_schema=False)
@reads.get(
    "/transcripts/{video_id}.json",
    response_model=TranscriptAnswer,
    responses=transcripts.RESPONSES,
)
async def get_static_transcript(request: Request, video_id: VideoId, reads: VideoReaderDep) -> Response:
    """A video's transcript, as `/api/videos/{video_id}/transcript` has it."""
    return await transcripts.get_transcript(request, video_id, reads)


@clips.head("/{name}", include_in_schema=False)
@clips.get("/{name}", response_class=Response, responses=media_responses("video/*", UNKNOWN_TYPE))
async def get_static_clip(name: ClipName, database: Checkouts, storage: MediaStorage) -> Response:
    """The video file that was cut out for a moment, by the names of both."""
    async with database.connect() as conn:
        url = await media.find_clip_by_name(conn, name)
    return MediaAnswer(storage, storage.open_async(url), cache_control=CACHE_CONTROL)
