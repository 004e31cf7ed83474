"""Deleting a video: its rows first, then its files, then its live state.

What is interrupted leaves files without a row and never a row without its file. The files of a video lie in folders of
its identifier, so the next deletion finds them there although the row is gone.
"""

import asyncio
import logging
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.errors import RedisUnavailable, VideoMomentsError, VideoNotFound
from app.core.redis import describe_redis_error, redis_unavailable
from app.database import Database
from app.repositories import VideoRepository
from app.services.deleted_rows import DeletedRows, Skips, delete_rows, is_in_bucket
from app.services.held import while_held
from app.services.identifiers import findable
from app.services.video_keys import delete_video_keys
from app.storage import Storage, audio_folder, clip_folder, playable_folder, thumbnail_folder, video_folder

_log = logging.getLogger(__name__)

# The client waits for the answer, and can ask again for what a Redis that is away still holds.
_REDIS_PATIENCE_SECONDS = 1.0
_NAMES = {
    "video": "The video's file",
    "playable": "The playable copy",
    "thumbnail": "The thumbnail",
    "audio": "An audio file",
    "clip": "A clip's file",
    "clip_thumbnail": "A clip's thumbnail",
}


@dataclass(slots=True)
class Deletion:
    """What came of a deletion: files that were deleted by kind and by home, and what failed, each in a sentence."""

    rows: DeletedRows
    in_files: Counter[str] = field(default_factory=Counter)
    in_bucket: Counter[str] = field(default_factory=Counter)
    redis_keys: int = 0
    errors: list[str] = field(default_factory=list)


async def delete_video(database: Database, storage: Storage, redis: Redis, identifier: str, skips: Skips) -> Deletion:
    """Delete a video, or what is left of one.

    Raises `VideoNotFound`, `PipelineActive`, and `RedisUnavailable` where it is not known whether anything is left.

    Files outside this server's own storage stay. A storage that does not answer at all fails before anything is
    deleted.
    """
    if not findable(identifier):
        raise VideoNotFound
    found = await _list_files(storage, identifier, skips)
    async with database.connect() as conn, conn.transaction():
        rows = await delete_rows(conn, identifier, skips)
    deletion = Deletion(rows or DeletedRows())
    await _delete_files(database, storage, identifier, deletion, found)
    was_there = bool(rows or deletion.in_files or deletion.in_bucket or deletion.errors)
    is_known = skips.skip_redis or await _delete_keys(redis, identifier, deletion)
    if not (was_there or deletion.redis_keys):
        raise VideoNotFound if is_known else RedisUnavailable
    return deletion


async def _list_files(storage: Storage, identifier: str, skips: Skips) -> dict[str, str]:
    """Return the kinds of the files that lie in the video's folders, by URL."""
    in_bucket = is_in_bucket(storage.url_of(video_folder(identifier)))
    folders = {
        "video": None if skips.skip_local_video else video_folder(identifier),
        "playable": None if skips.skip_local_video else playable_folder(identifier),
        "thumbnail": None if skips.skip_local_thumbnail else thumbnail_folder(identifier),
        "audio": None if skips.keep_audio(in_bucket) else audio_folder(identifier),
        "clip": None if skips.keep_clips(in_bucket) else clip_folder(identifier),
    }
    return {file.url: kind for kind, folder in folders.items() if folder for file in await storage.list(folder)}


async def _delete_files(
    database: Database, storage: Storage, identifier: str, deletion: Deletion, found: dict[str, str]
) -> None:
    """Delete the files whose rows are gone, and then those that no row names."""
    of_rows = {file.url: file.kind for file in deletion.rows.files}
    for url, kind in of_rows.items():
        await _delete_file(storage, url, kind, deletion)
    for url, kind in found.items():
        if url not in of_rows:
            await _delete_leftover(database, storage, identifier, url, kind, deletion)


async def _delete_leftover(
    database: Database, storage: Storage, identifier: str, url: str, kind: str, deletion: Deletion
) -> None:
    """Delete a file that no row names. The name is held meanwhile: an upload that has just stored it waits with its
    row, and sees that it is gone.
    """
    async with database.connect() as conn, conn.transaction():
        videos = VideoRepository(conn)
        await videos.lock_identifier(identifier)
        if not await videos.refers_to(identifier, url):
            await _delete_file(storage, url, kind, deletion, is_held=True)


async def _delete_file(storage: Storage, url: str, kind: str, deletion: Deletion, *, is_held: bool = False) -> None:
    try:
        async with while_held() if is_held else nullcontext():
            is_gone = await storage.delete(url)
        if is_gone:
            (deletion.in_bucket if is_in_bucket(url) else deletion.in_files)[kind] += 1
    except VideoMomentsError as error:
        _log.warning("%s is left: %s", url, error)
        deletion.errors.append(f"{_NAMES[kind]} could not be deleted: {error}")


async def _delete_keys(redis: Redis, identifier: str, deletion: Deletion) -> bool:
    """Return whether Redis has answered."""
    try:
        async with asyncio.timeout(_REDIS_PATIENCE_SECONDS):  # what follows takes longer the more keys there are
            await redis.ping()
        deletion.redis_keys = await delete_video_keys(redis, identifier, deletion.rows.runs)
    except (RedisError, OSError) as error:
        _log.warning("The live state of %r is left: %s", identifier, describe_redis_error(error))
        reason = redis_unavailable(error) or RedisUnavailable()
        deletion.errors.append(f"The live state could not be deleted: {reason}")
        return False
    return True
