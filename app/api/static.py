"""`/static/…`: files at the addresses that `thumbnail_url` gives out."""

import asyncio
import os
import stat
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from app.api.dependencies import AutocommitConnection
from app.api.errors import error_answer
from app.api.schemas.common import Error
from app.services.thumbnails import find_thumbnail

router = APIRouter(prefix="/static", tags=["static"])

ThumbnailName = Annotated[str, Path(description="Identifier of the video", examples=["motivation"])]


class LocalFile(FileResponse):
    """A file with ranges and conditions, or 404 where it is gone: looked at when no connection is held any more."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            found = await asyncio.to_thread(os.stat, self.path)
        except (OSError, ValueError):
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            await error_answer(404, "File not found")(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@router.head("/thumbnails/{video_id}.jpg", include_in_schema=False)
@router.get(
    "/thumbnails/{video_id}.jpg",
    response_class=LocalFile,
    responses={200: {"content": {"image/jpeg": {}}}, 404: {"model": Error}},
)
async def get_thumbnail(video_id: ThumbnailName, conn: AutocommitConnection) -> LocalFile:
    """The still picture of a video."""
    return LocalFile(await find_thumbnail(conn, video_id), media_type="image/jpeg")
