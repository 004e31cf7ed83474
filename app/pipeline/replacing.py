"""Takes away what a run makes anew: rows in the caller's transaction, and their files once that is committed."""

import logging
from collections.abc import Iterable, Sequence
from typing import Unpack

from app.core.errors import VideoMomentsError
from app.database import Connection
from app.pipeline.context import RunContext
from app.repositories import ClipRepository, MomentRepository
from app.repositories.clips import NewClip
from app.repositories.parts import PartRepository

_log = logging.getLogger(__name__)


async def delete_moments(conn: Connection, video_id: int, moment_ids: Sequence[int]) -> set[str]:
    """Delete moments with their clips, and return the URLs of files that nothing of the video refers to any more."""
    if not moment_ids:
        return set()
    parts = PartRepository(conn)
    before = {file.url for file in await parts.list_files(video_id)}
    await MomentRepository(conn).delete_many(moment_ids)
    return before - {file.url for file in await parts.list_files(video_id)}


async def replace_clip(conn: Connection, **clip: Unpack[NewClip]) -> set[str]:
    """Add the clip of a moment in the place of the one it has, and return the URLs of files as `delete_moments` does.

    It gets another id, so that a picture that is being made of the old one is not taken for its own.
    """
    parts, clips = PartRepository(conn), ClipRepository(conn)
    old = await clips.get_by_moment(clip["moment_id"])
    if old is None:
        await clips.create(**clip)
        return set()
    before = {file.url for file in await parts.list_files(clip["video_id"])}
    await clips.delete(old.id)
    await clips.create(**clip)
    return before - {file.url for file in await parts.list_files(clip["video_id"])}


async def delete_files(context: RunContext, urls: Iterable[str]) -> None:
    """Delete the server's own files. One that stays is in nobody's way, so a failure is only logged."""
    for url in urls:
        try:
            await context.storage.delete(url)
        except VideoMomentsError as error:
            _log.warning("The file of a clip that was replaced stays: %s", error)
