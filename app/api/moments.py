"""`/api/videos/{id}/moments`"""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import (
    AutocommitConnection,
    Checkouts,
    MediaStorage,
    MomentId,
    TransactionConnection,
    VideoId,
)
from app.api.read_route import ReadRoute, VideoReaderDep
from app.api.schemas.moments import MomentAnswer, MomentDeletionAnswer, MomentEditBody, NewMomentBody
from app.repositories.moments import MomentWithConfig
from app.services import deletion, moments

router = APIRouter(prefix="/api/videos/{video_id}/moments", tags=["moments"])
reads = APIRouter(prefix="/api/videos/{video_id}/moments", tags=["moments"], route_class=ReadRoute)


@reads.get("", response_model=list[MomentAnswer], responses={404: {"model": Error}})
async def list_moments(request: Request, video_id: VideoId, reads: VideoReaderDep) -> Response:
    """List a video's moments in the order they were added."""
    return json_answer([_answer(moment) for moment in await reads.list_moments(video_id)])


@router.post(
    "",
    status_code=201,
    response_model=MomentAnswer,
    responses={400: {"model": Error, "description": "A rule for moments is broken"}, 404: {"model": Error}},
)
async def add_moment(video_id: VideoId, body: NewMomentBody, conn: AutocommitConnection) -> Response:
    """Add a moment by hand: inside the video, at most 120 seconds long, and over no other moment."""
    added = await moments.add_moment(conn, video_id, body.start_time, body.end_time, body.title)
    return json_answer(_answer(added), 201)


@router.patch(
    "/{moment_id}",
    response_model=MomentAnswer,
    responses={400: {"model": Error, "description": "A rule for moments is broken"}, 404: {"model": Error}},
)
async def edit_moment(
    video_id: VideoId, moment_id: MomentId, body: MomentEditBody, conn: TransactionConnection
) -> Response:
    """Change a moment's title, times or score.

    New times obey the rules for new moments, but may overlap the moment's original and what was refined from it.
    """
    edit = body.model_dump(exclude_unset=True)
    return json_answer(_answer(await moments.edit_moment(conn, video_id, moment_id, **edit)))


@router.delete(
    "/{moment_id}",
    response_model=MomentDeletionAnswer,
    responses={404: {"model": Error}},
)
async def delete_moment(video_id: VideoId, moment_id: MomentId, database: Checkouts, storage: MediaStorage) -> Response:
    """Delete a moment with its clip and the clip's thumbnail. What was refined from it stays, without a parent.

    Files that an import only found are the user's and stay. After a failure the same request deletes what is left.
    """
    done = await deletion.delete_moment(database, storage, video_id, moment_id)
    deleted = {
        "moment": moment_id,
        "clip": done.had_clip,
        "thumbnail": done.had_thumbnail,
        "files": done.files,
    }
    return json_answer({"deleted": deleted, "orphaned": done.orphaned, "errors": done.errors or None})


def _answer(moment: MomentWithConfig) -> dict[str, Any]:
    config = moment.generation_config
    score = {} if moment.score is None else {"score": moment.score, "scoring_model": moment.scoring_model}
    return {
        "id": moment.identifier,
        "start_time": moment.start_time,
        "end_time": moment.end_time,
        "title": moment.title,
        "is_refined": moment.is_refined,
        "parent_id": moment.parent_identifier,
        "model_name": moment.generation_model,
        "generation_config": None if config is None else orjson.Fragment(config),
        **score,
    }
