"""`/api/videos/{id}/stream`, `…/url` and `…/moments/{mid}/clip`"""

from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import Checkouts, MediaStorage, MomentId, VideoId, get_storage
from app.api.media_answer import MediaAnswer, media_responses
from app.api.read_route import ReadRoute, VideoReaderDep
from app.api.schemas.streams import MediaAddress
from app.core.media_types import UNKNOWN_TYPE
from app.services import media

router = APIRouter(prefix="/api/videos/{video_id}", tags=["media"])
reads = APIRouter(prefix="/api/videos/{video_id}", tags=["media"], route_class=ReadRoute)

# A client keeps what it has and asks each time whether it is still right.
CACHE_CONTROL = "private, no-cache"


@reads.head("/stream", include_in_schema=False)
@reads.get("/stream", response_class=Response, responses=media_responses("video/*", UNKNOWN_TYPE))
async def stream_video(request: Request, video_id: VideoId, reads: VideoReaderDep) -> Response:
    """The video's file, whole or in ranges, so that a player can seek. A video in a bucket is a redirect to it.

    Where browsers do not play the file, a copy that they play takes its place as soon as it is made.
    """
    urls = await reads.find_video_files(video_id)
    storage = await get_storage(request)
    return MediaAnswer(storage, media.open_first(storage, urls), cache_control=CACHE_CONTROL)


@router.get("/url", response_model=MediaAddress, responses={404: {"model": Error}, 503: {"model": Error}})
async def get_video_address(
    request: Request, video_id: VideoId, reads: VideoReaderDep, storage: MediaStorage
) -> Response:
    """Where the video's file can be read without this server where its home serves it, else its stream."""
    async with media.open_first(storage, await reads.find_video_files(video_id)) as file:
        url = file.stored.url
    link = await storage.get_signed_url(url)
    if link is None:
        address = f"{request.base_url}api/videos/{quote(video_id, safe='')}/stream"
        return json_answer({"url": address, "expires_in_seconds": None})
    return json_answer(
        {"url": link.url, "expires_in_seconds": link.expires_in_seconds}, headers={"Cache-Control": "private, no-store"}
    )


@router.head("/moments/{moment_id}/clip", include_in_schema=False)
@router.get(
    "/moments/{moment_id}/clip",
    response_class=Response,
    responses=media_responses("video/*", UNKNOWN_TYPE),
)
async def stream_clip(video_id: VideoId, moment_id: MomentId, database: Checkouts, storage: MediaStorage) -> Response:
    """The video file that was cut out for a moment, with its padding."""
    async with database.connect() as conn:
        url = await media.find_clip_file(conn, video_id, moment_id)
    return MediaAnswer(storage, storage.open_async(url), cache_control=CACHE_CONTROL)
