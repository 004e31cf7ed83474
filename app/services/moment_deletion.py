"""Deleting a moment: first its rows, then the server's own files of its clip, so that no row names a missing file."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from app.core.errors import MomentNotFound, VideoMomentsError
from app.database import Connection, Database
from app.models import Moment
from app.repositories import ClipRepository, MomentRepository, ThumbnailRepository, VideoRepository
from app.services.moments import hold_moment
from app.storage import Storage
from app.storage.keys import clip_folder, thumbnail_folder

_IDENTIFIER = re.compile("[0-9a-f]{16}")


@dataclass(slots=True)
class MomentDeletion:
    """What went with a moment, what lost its parent, and what could not be deleted."""

    had_clip: bool = False
    had_thumbnail: bool = False
    files: int = 0
    orphaned: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def delete_moment(database: Database, storage: Storage, video_identifier: str, identifier: str) -> MomentDeletion:
    """Delete a moment and its files; where only files are left of it, those.

    Raises `VideoNotFound`, `MomentNotFound`, and `StorageUnavailable` where it is not known whether files are left.
    """
    done = MomentDeletion()
    async with database.connect() as conn, conn.transaction():
        _, moment = await hold_moment(conn, video_identifier, identifier)
        urls = await _delete_rows(conn, moment, done) if moment else []
    try:
        urls += await _find_files(storage, video_identifier, identifier)
    except VideoMomentsError as error:
        if moment is None:
            raise
        done.errors.append(str(error))
    for url in dict.fromkeys(urls):
        await _delete_file(database, storage, video_identifier, url, done)
    if moment is None and not done.files and not done.errors:
        raise MomentNotFound
    return done


async def _delete_rows(conn: Connection, moment: Moment, done: MomentDeletion) -> list[str]:
    """Delete the moment and what belongs to it, and return where its files lie."""
    clip = await ClipRepository(conn).get_by_moment(moment.id)
    thumbnail = await ThumbnailRepository(conn).get_by_clip(clip.id) if clip else None
    moments = MomentRepository(conn)
    done.orphaned = [child.identifier for child in await moments.list_children(moment.id) if child.id != moment.id]
    await moments.delete(moment.id)
    done.had_clip, done.had_thumbnail = clip is not None, thumbnail is not None
    return [row.cloud_url for row in (clip, thumbnail) if row]


async def _find_files(storage: Storage, video_identifier: str, identifier: str) -> list[str]:
    """Return the files of the video's clips, and of their thumbnails, whose names hold the moment's identifier."""
    if not _IDENTIFIER.fullmatch(identifier):  # a part of every name would be in every name
        return []
    name = re.compile(f"(?<![0-9a-z]){identifier}(?![0-9a-z])")
    folders = (clip_folder(video_identifier), thumbnail_folder(video_identifier))
    return [file.url for folder in folders for file in await storage.list(folder) if name.search(_stem(file.url))]


def _stem(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).stem


async def _delete_file(
    database: Database, storage: Storage, video_identifier: str, url: str, done: MomentDeletion
) -> None:
    """Delete a file, unless something else of the video lies there, too."""
    async with database.connect() as conn:
        if await VideoRepository(conn).refers_to(video_identifier, url):
            return
    try:
        done.files += await storage.delete(url)
    except VideoMomentsError as error:
        done.errors.append(str(error))
