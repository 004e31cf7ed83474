"""`/api/videos/{id}/thumbnail`, `…/moments/{mid}/clip/thumbnail` and `/static/thumbnails/{id}.jpg`"""

from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from app.api.answers import Error
from app.api.dependencies import MediaStorage, MomentId, ResourcesDep, VideoId
from app.api.media_answer import MediaAnswer, media_responses
from app.core.media_types import UNKNOWN_TYPE
from app.services.thumbnails import Thumbnails
from app.storage import OpenFile, Storage

router = APIRouter(tags=["thumbnails"], default_response_class=Response)

# A picture seldom changes, and a list of cards shows it again and again.
_CACHE_CONTROL = "private, max-age=600"
_RESPONSES = media_responses("image/*", UNKNOWN_TYPE) | {
    507: {"model": Error, "description": "There is no room for a picture that has yet to be made"}
}


async def get_thumbnails(resources: ResourcesDep) -> Thumbnails:
    return resources.thumbnails


Pictures = Annotated[Thumbnails, Depends(get_thumbnails)]


@router.head("/api/videos/{video_id}/thumbnail", include_in_schema=False)
@router.get("/api/videos/{video_id}/thumbnail", responses=_RESPONSES)
async def get_thumbnail(video_id: VideoId, pictures: Pictures, storage: MediaStorage) -> Response:
    """The still picture of a video; one that has none gets it now."""
    return _answer(storage, pictures.open_video(video_id))


@router.head("/static/thumbnails/{video_id}.jpg", include_in_schema=False)
@router.get("/static/thumbnails/{video_id}.jpg", responses=_RESPONSES)
async def get_static_thumbnail(video_id: VideoId, pictures: Pictures, storage: MediaStorage) -> Response:
    """The same, at the address that `thumbnail_url` gives out."""
    return _answer(storage, pictures.open_video(video_id))


@router.head("/api/videos/{video_id}/moments/{moment_id}/clip/thumbnail", include_in_schema=False)
@router.get("/api/videos/{video_id}/moments/{moment_id}/clip/thumbnail", responses=_RESPONSES)
async def get_clip_thumbnail(
    video_id: VideoId, moment_id: MomentId, pictures: Pictures, storage: MediaStorage
) -> Response:
    """The still picture of a moment's clip; one that has none gets it now."""
    return _answer(storage, pictures.open_clip(video_id, moment_id))


def _answer(storage: Storage, picture: AbstractAsyncContextManager[OpenFile]) -> Response:
    return MediaAnswer(storage, picture, cache_control=_CACHE_CONTROL)
