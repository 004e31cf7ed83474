"""`PATCH` and `DELETE /api/videos/{id}`"""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.api.answers import Error, json_answer
from app.api.dependencies import Checkouts, LiveState, MediaStorage, VideoId
from app.api.read_route import VideoReaderDep
from app.api.schemas.videos import DeleteQuery, DeletionAnswer, SingleVideoAnswer, VideoChangesBody
from app.api.videos import describe_video
from app.repositories.videos import VideoChanges
from app.services.deletion import DeletionOptions, VideoDeletion, delete_video
from app.services.videos import update_video

router = APIRouter(prefix="/api/videos/{video_id}", tags=["videos"])


@router.patch("", response_model=SingleVideoAnswer, responses={404: {"model": Error}, 422: {"model": Error}})
async def edit_video(video_id: VideoId, body: VideoChangesBody, database: Checkouts, reads: VideoReaderDep) -> Response:
    """Correct a video's title or source_url; null forgets it."""
    changes: VideoChanges = body.model_dump(include=body.model_fields_set)  # type: ignore[assignment]
    async with database.connect() as conn:
        await update_video(conn, video_id, changes)
    return json_answer(await describe_video(reads, video_id))


@router.delete(
    "",
    name="delete_video",
    response_model=DeletionAnswer,
    responses={
        400: {"model": Error, "description": "A run works on the video, and `force` is not set"},
        404: {"model": Error},
        422: {"model": Error},
        503: {"model": Error, "description": "The database, the storage or Redis is away: nothing was deleted"},
    },
)
async def remove_video(
    video_id: VideoId,
    query: Annotated[DeleteQuery, Query()],
    database: Checkouts,
    storage: MediaStorage,
    redis: LiveState,
) -> Response:
    """Delete a video with all that belongs to it, or what an interrupted deletion has left of one."""
    started = time.perf_counter()
    deletion = await delete_video(database, storage, redis, video_id, DeletionOptions(**query.model_dump()))
    return json_answer(_answer(video_id, deletion, round((time.perf_counter() - started) * 1000)))


def _answer(video_id: str, deletion: VideoDeletion, milliseconds: int) -> dict[str, Any]:
    rows, local_files, bucket_files = deletion.rows, deletion.local_files, deletion.bucket_files
    return {
        "status": "partial" if deletion.errors else "completed",
        "video_id": video_id,
        "deleted": {
            "local": {
                "video": local_files["video"] + bucket_files["video"] > 0,
                "audio": local_files["audio"] > 0,
                "thumbnail": local_files["thumbnail"] + bucket_files["thumbnail"] > 0,
                "transcript": rows.transcript,
                "moments": rows.moments,
                "clips": local_files["clip"],
            },
            "gcs": {"audio_files": bucket_files["audio"], "clip_files": bucket_files["clip"]},
            "redis_keys": deletion.redis_keys,
            "url_registry": rows.source_url,
        },
        "errors": deletion.errors or None,
        "duration_ms": milliseconds,
    }
