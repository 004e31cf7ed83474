"""Videos, clips and extracted audio as files, also at the addresses of the previous backend."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import Response

from app.api.answers import Error, answer_dataclass, json_answer
from app.api.dependencies import FastReadRoute, MomentId, ResourcesDep, VideoId
from app.api.media_answer import MediaAnswer, document_media_responses
from app.core.media_types import UNKNOWN_TYPE
from app.services import media
from app.storage import find_audio_file

router = APIRouter(prefix="/api/videos/{video_id}", tags=["media"])
reads = APIRouter(prefix="/api/videos/{video_id}", tags=["media"], route_class=FastReadRoute)
static = APIRouter(tags=["static"])

ClipName = Annotated[str, Path(description="Video, moment, `clip`", examples=["motivation_7621a017eec7482f_clip.mp4"])]
_VIDEO_RESPONSES = document_media_responses("video/*", UNKNOWN_TYPE)


@answer_dataclass
class VideoFileAddress:
    url: Annotated[str, Field(examples=["http://localhost:7005/api/videos/talk/stream"])]
    expires_in_seconds: Annotated[int | None, Field(description="Null where the address does not expire")]


@reads.head("/stream", include_in_schema=False)
@reads.get("/stream", response_class=Response, responses=_VIDEO_RESPONSES)
async def stream_video(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """The video's file, or the copy that browsers can play, whole or in ranges; for a bucket a redirect to it."""
    urls = await resources.reads.list_video_file_urls(video_id)
    return MediaAnswer(resources.storage, media.open_first_existing_file(resources.storage, urls))


@router.get("/url", response_model=VideoFileAddress, responses={404: {"model": Error}, 503: {"model": Error}})
async def get_video_address(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """The signed address of a video in a bucket; else the address of its stream."""
    urls = await resources.reads.list_video_file_urls(video_id)
    async with media.open_first_existing_file(resources.storage, urls) as file:
        url = file.stored.url
    link = await resources.storage.get_signed_url(url)
    if link is None:
        address = f"{request.base_url}api/videos/{quote(video_id, safe='')}/stream"
        return json_answer(VideoFileAddress(url=address, expires_in_seconds=None))
    signed = VideoFileAddress(url=link.url, expires_in_seconds=link.expires_in_seconds)
    return json_answer(signed, headers={"Cache-Control": "private, no-store"})


@router.head("/moments/{moment_id}/clip", include_in_schema=False)
@router.get("/moments/{moment_id}/clip", response_class=Response, responses=_VIDEO_RESPONSES)
async def stream_clip(video_id: VideoId, moment_id: MomentId, resources: ResourcesDep) -> Response:
    """The clip of a moment, with its padding."""
    async with resources.database.connect() as conn:
        url = await media.get_clip_url(conn, video_id, moment_id)
    return MediaAnswer(resources.storage, resources.storage.open_async(url))


@static.head("/static/audios/{video_id}.wav", include_in_schema=False)
@static.get(
    "/static/audios/{video_id}.wav",
    response_class=Response,
    responses=document_media_responses("audio/wav", UNKNOWN_TYPE),
)
async def get_static_audio(video_id: VideoId, resources: ResourcesDep) -> Response:
    """The audio that was extracted from a video for its transcription."""
    await resources.reads.list_video_file_urls(video_id)  # audio without a video must not be found
    url = await find_audio_file(resources.storage, video_id)
    return MediaAnswer(resources.storage, resources.storage.open_async(url))


@static.head("/moment_clips/{name}", include_in_schema=False)
@static.get("/moment_clips/{name}", response_class=Response, responses=_VIDEO_RESPONSES)
async def get_static_clip(name: ClipName, resources: ResourcesDep) -> Response:
    """The clip of a moment, by the identifiers of its video and itself."""
    async with resources.database.connect() as conn:
        url = await media.find_clip_url_by_legacy_name(conn, name)
    return MediaAnswer(resources.storage, resources.storage.open_async(url))
