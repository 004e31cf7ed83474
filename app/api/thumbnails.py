"""Thumbnails of videos and clips, also at the address of the previous backend."""

from fastapi import APIRouter
from starlette.responses import Response

from app.api.answers import Error
from app.api.dependencies import MomentId, ResourcesDep, VideoId
from app.api.media_answer import MediaAnswer, document_media_responses
from app.core.media_types import UNKNOWN_TYPE

router = APIRouter(tags=["thumbnails"], default_response_class=Response)

# A thumbnail rarely changes, and a list of videos shows it repeatedly.
_CACHE_CONTROL = "private, max-age=600"
_RESPONSES = document_media_responses("image/*", UNKNOWN_TYPE) | {
    507: {"model": Error, "description": "The storage is full, so that the thumbnail cannot be made"}
}


@router.head("/api/videos/{video_id}/thumbnail", include_in_schema=False)
@router.get("/api/videos/{video_id}/thumbnail", responses=_RESPONSES)
@router.head("/static/thumbnails/{video_id}.jpg", include_in_schema=False)
@router.get("/static/thumbnails/{video_id}.jpg", responses=_RESPONSES, name="get_static_thumbnail")
async def get_thumbnail(video_id: VideoId, resources: ResourcesDep) -> Response:
    """The thumbnail of a video; a missing one is made now."""
    thumbnail = resources.thumbnails.open_or_make_video_thumbnail(video_id)
    return MediaAnswer(resources.storage, thumbnail, cache_control=_CACHE_CONTROL)


@router.head("/api/videos/{video_id}/moments/{moment_id}/clip/thumbnail", include_in_schema=False)
@router.get("/api/videos/{video_id}/moments/{moment_id}/clip/thumbnail", responses=_RESPONSES)
async def get_clip_thumbnail(video_id: VideoId, moment_id: MomentId, resources: ResourcesDep) -> Response:
    """The thumbnail of a moment's clip; a missing one is made now."""
    thumbnail = resources.thumbnails.open_or_make_clip_thumbnail(video_id, moment_id)
    return MediaAnswer(resources.storage, thumbnail, cache_control=_CACHE_CONTROL)
