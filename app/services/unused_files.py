"""Files of clips, and of their thumbnails, that runs have left without a row.

A run stores a file before its row, and rows go in transactions that delete no file. So a worker that dies, or a run
that ends without one, leaves files behind; they go when the next run over the video ends.
"""

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta

import psycopg

from app.core.errors import StorageUnavailable, VideoMomentsError
from app.database import Database
from app.repositories.parts import PartRepository
from app.storage import Storage, clip_folder, thumbnail_folder
from app.storage.protocol import StoredFile

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0
# As runs and the server name them: an import, which also stores files before their rows, takes other names.
_CLIP = re.compile(r"_[0-9a-f]{8}_clip\.(mp4|m4a)")
_THUMBNAIL = re.compile(r"[0-9a-f]{24}\.jpg")
_THUMBNAIL_AGE = timedelta(hours=1)  # a younger one may get its row yet


async def delete_unused_files(database: Database, storage: Storage, video: str) -> None:
    """Delete what no row names, unless a run over the video is under way. A file that stays is only logged."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await _delete(database, storage, video)
    except (psycopg.Error, VideoMomentsError, OSError) as error:  # a `TimeoutError` is an `OSError`
        reason = StorageUnavailable("The storage takes too long") if isinstance(error, TimeoutError) else error
        _log.warning("Files of '%s' that nothing names stay: %s", video, reason)


async def _delete(database: Database, storage: Storage, video: str) -> None:
    # Before the rows are read: a file of a run that begins or ends meanwhile is not among them, or has its row.
    found = await _list_candidates(storage, video)
    if not found:
        return
    async with database.connect() as conn:
        unused = await PartRepository(conn).list_unused(video, found)
    for url in unused:
        await storage.delete(url)
    if unused:
        _log.info("Deleted %d files of '%s' that nothing names", len(unused), video)


async def _list_candidates(storage: Storage, video: str) -> list[str]:
    clips = [file.url for file in await storage.list(clip_folder(video)) if _CLIP.search(file.url)]
    return clips + [file.url for file in await storage.list(thumbnail_folder(video)) if _is_old_thumbnail(file)]


def _is_old_thumbnail(file: StoredFile) -> bool:
    return bool(_THUMBNAIL.search(file.url)) and datetime.now(UTC) - file.modified > _THUMBNAIL_AGE
