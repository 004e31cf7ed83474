"""`/api/videos`"""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import Limit, VideoId, get_database
from app.api.paging import next_link
from app.api.read_route import ReadRoute, VideoReaderDep, get_video_reader
from app.api.schemas.videos import SingleVideoAnswer, VideoAnswer
from app.models.videos import FileStatus, describe_early_end
from app.repositories.videos import DetailedVideoCard, VideoCard
from app.services import videos
from app.services.media import ExtractedAudio
from app.services.videos import VideoReader

router = APIRouter(prefix="/api/videos", tags=["videos"])
reads = APIRouter(prefix="/api/videos", tags=["videos"], route_class=ReadRoute)

_SHOWN_STATUSES = frozenset({FileStatus.MAKING, FileStatus.READY, FileStatus.FAILED})
_SILENCE: frozenset[str] = frozenset()  # looked into faster than an index that holds nothing

Cursor = Annotated[str, Query(max_length=255, description="From the Link header of the page before")]


@router.get("", response_model=list[VideoAnswer])
async def list_videos(request: Request, limit: Limit = None, cursor: Cursor = "") -> Response:
    """List videos, ordered by id. Without `limit` the whole library; with it, `Link` names the next page."""
    # Asked for before the connection, which is not held while the storage answers.
    audio = await (await get_video_reader(request)).audio.get()
    async with (await get_database(request)).connect() as conn:
        cards = await videos.list_videos(conn, limit, cursor)
    headers = next_link(request, cards[-1].identifier) if limit is not None and len(cards) == limit else None
    return json_answer([_answer(card, audio or _SILENCE) for card in cards], headers=headers)


@reads.get("/{video_id}", response_model=SingleVideoAnswer, responses={404: {"model": Error}})
async def get_video(request: Request, video_id: VideoId, reads: VideoReaderDep) -> Response:
    """One video."""
    return json_answer(await describe_video(reads, video_id))


async def describe_video(reads: VideoReader, identifier: str) -> dict[str, Any]:
    """What every route answers of one video. Raises `VideoNotFound`."""
    card = await reads.get_video(identifier)
    return {**_answer(card, await reads.audio.get()), **_describe_file(card)}


def _describe_file(card: DetailedVideoCard) -> dict[str, Any]:
    """Return what there is to say of the video's file beside its name, and nothing of most files."""
    described: dict[str, Any] = {}
    if card.copy_status in _SHOWN_STATUSES:
        reason = {"reason": card.copy_reason} if card.copy_reason else {}
        described["playable_copy"] = {"status": card.copy_status, **reason}
    if problem := describe_early_end(card.duration_seconds, card.ends_early, card.declared_seconds):
        described["file_problem"] = problem
    return described


def _answer(card: VideoCard, audio: ExtractedAudio | frozenset[str]) -> dict[str, Any]:
    return {
        "id": card.identifier,
        "filename": card.filename,
        "title": card.title,
        "thumbnail_url": f"/static/thumbnails/{quote(card.identifier)}.jpg" if card.has_thumbnail else None,
        "has_audio": card.identifier in audio or (False if card.may_have_file else None),
        "has_transcript": card.has_transcript,
    }
