"""Deletion of videos and moments: rows first, then files, then the live state.

An interruption leaves files without a row, never a row without its file. The files of a video lie in folders named
after its identifier, so the next deletion finds them although the row is deleted.
"""

import asyncio
import logging
import re
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.errors import MomentNotFound, PipelineActive, RedisUnavailable, VideoMomentsError, VideoNotFound
from app.core.redis import describe_redis_error, translate_redis_error
from app.database import Connection, Database
from app.models import Moment, Video
from app.repositories import (
    ClipRepository,
    GenerationConfigRepository,
    MomentRepository,
    ThumbnailRepository,
    TranscriptRepository,
    VideoRepository,
)
from app.repositories.contents import FileReference, ReplacedMomentsRepository, VideoContents, VideoContentsRepository
from app.services.live_runs import delete_and_count_redis_keys_of_video
from app.services.media import limit_storage_time
from app.services.moments import lock_video_and_moment
from app.services.queue import cancel_active_runs
from app.storage import (
    Storage,
    audio_folder_key,
    clip_folder_key,
    playable_folder_key,
    thumbnail_folder_key,
    video_folder_key,
)

_log = logging.getLogger(__name__)
# The client waits for the answer, and can repeat the deletion when Redis is available again.
_REDIS_TIMEOUT = 1.0
_FILE_KINDS = {
    "video": "The video's file",
    "playable": "The playable copy",
    "thumbnail": "The thumbnail",
    "audio": "An audio file",
    "clip": "A clip's file",
    "clip_thumbnail": "A clip's thumbnail",
}
_MOMENT_IDENTIFIER = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class DeletionOptions:
    """What a deletion of a video keeps. A kept part keeps the video's row and file too, to which its rows refer."""

    force: bool = False
    skip_local_video: bool = False
    skip_local_audio: bool = False
    skip_local_thumbnail: bool = False
    skip_local_transcript: bool = False
    skip_local_moments: bool = False
    skip_local_clips: bool = False
    skip_gcs_audio: bool = False
    skip_gcs_clips: bool = False
    skip_redis: bool = False
    skip_registry: bool = False

    def keeps_audio(self, in_bucket: bool) -> bool:
        return self.skip_gcs_audio if in_bucket else self.skip_local_audio

    def keeps_clips(self, in_bucket: bool) -> bool:
        return self.skip_gcs_clips if in_bucket else self.skip_local_clips


@dataclass(frozen=True, slots=True)
class DeletedRows:
    """Whether transcript, moments, source URL of a video were deleted; `files` have no row now, `runs` are its runs."""

    files: list[FileReference] = field(default_factory=list)
    transcript: bool = False
    moments: bool = False
    source_url: bool = False
    runs: list[str] = field(default_factory=list)


def is_google_storage_url(url: str) -> bool:
    return url.startswith("gs://")


async def delete_video_rows(conn: Connection, video_identifier: str, options: DeletionOptions) -> DeletedRows | None:
    """Delete a video's rows in the caller's transaction; return None for an unknown video. Raises `PipelineActive`."""
    video = await VideoRepository(conn).lock_video_for_deletion(video_identifier)
    if video is None:
        return None
    contents = await VideoContentsRepository(conn).get_contents(video.id)
    if contents.active_status is not None:
        if not options.force:
            raise PipelineActive(contents.active_status)
        await cancel_active_runs(conn, video_identifier)
    files = await VideoContentsRepository(conn).list_file_references(video.id)
    if contents.transcript_id is not None and not options.skip_local_transcript:
        # Other videos may share its configs; deleting those would delete their moments.
        await GenerationConfigRepository(conn).detach_transcript(contents.transcript_id)
    if _must_keep_video_row(options, contents, files):
        return await _delete_content_rows_not_kept(conn, video, options, contents, files)
    await VideoRepository(conn).delete(video.id)
    return DeletedRows(
        files, contents.transcript_id is not None, contents.moments > 0, video.source_url is not None, contents.runs
    )


def _must_keep_video_row(options: DeletionOptions, contents: VideoContents, files: list[FileReference]) -> bool:
    return (
        options.skip_local_video
        or (options.skip_local_transcript and contents.transcript_id is not None)
        or (options.skip_local_moments and contents.moments > 0)
        or (options.skip_local_thumbnail and any(file.kind == "thumbnail" for file in files))
        or any(file.kind == "clip" and options.keeps_clips(is_google_storage_url(file.url)) for file in files)
    )


async def _delete_content_rows_not_kept(
    conn: Connection, video: Video, options: DeletionOptions, contents: VideoContents, files: list[FileReference]
) -> DeletedRows:
    deleted = await _delete_clip_rows_not_kept(conn, options, files)
    await _discard_replaced_moments_or_clips(conn, video, options)
    moments = (
        0 if options.skip_local_moments else await VideoContentsRepository(conn).delete_moments_without_clip(video.id)
    )
    if not options.skip_local_thumbnail:
        for file in (file for file in files if file.kind == "thumbnail"):
            await ThumbnailRepository(conn).delete(file.owner_id)
            deleted.append(file)
    transcript = not options.skip_local_transcript and await TranscriptRepository(conn).delete_by_video(video.id)
    clears_source = video.source_url is not None and not options.skip_registry
    if clears_source:
        await VideoRepository(conn).update(video.id, source_url=None)
    return DeletedRows(deleted, transcript, moments > 0, clears_source, contents.runs)


async def _discard_replaced_moments_or_clips(conn: Connection, video: Video, options: DeletionOptions) -> None:
    """Discard what a cancelled run would restore: moments that it replaced, or only clips where moments are kept."""
    replaced = ReplacedMomentsRepository(conn)
    if options.skip_local_moments:
        local, in_bucket = options.keeps_clips(in_bucket=False), options.keeps_clips(in_bucket=True)
        await replaced.discard_set_aside_clips(video.id, keeps_local=local, keeps_in_bucket=in_bucket)
    else:
        await replaced.discard_set_aside_rows_of_video(video.id)


async def _delete_clip_rows_not_kept(
    conn: Connection, options: DeletionOptions, files: list[FileReference]
) -> list[FileReference]:
    clips = {
        file.owner_id
        for file in files
        if file.kind == "clip" and not options.keeps_clips(is_google_storage_url(file.url))
    }
    await VideoContentsRepository(conn).delete_clips(sorted(clips))
    return [file for file in files if file.kind in ("clip", "clip_thumbnail") and file.owner_id in clips]


@dataclass(slots=True)
class VideoDeletionResult:
    """The result of deleting a video: its deleted rows, counts of deleted files by kind, and failures as sentences."""

    rows: DeletedRows
    local_files: Counter[str] = field(default_factory=Counter)
    bucket_files: Counter[str] = field(default_factory=Counter)
    redis_keys: int = 0
    errors: list[str] = field(default_factory=list)


async def delete_video(
    database: Database, storage: Storage, redis: Redis, identifier: str, options: DeletionOptions
) -> VideoDeletionResult:
    """Delete a video and its files, or the rest of an interrupted deletion; return what was deleted and what failed.

    An unavailable storage fails before anything is deleted. Raises `VideoNotFound`, `PipelineActive`, and
    `RedisUnavailable` where anything left could only be in Redis.
    """
    files_in_folders = await _map_file_urls_to_kinds(storage, identifier, options)
    async with database.connect() as conn, conn.transaction():
        rows = await delete_video_rows(conn, identifier, options)
    deletion = VideoDeletionResult(rows or DeletedRows())
    files_of_rows = {file.url: file.kind for file in deletion.rows.files}
    for url, kind in files_of_rows.items():
        await _delete_and_count_video_file(storage, url, kind, deletion)
    for url, kind in files_in_folders.items():
        if url not in files_of_rows:
            await _delete_and_count_file_if_unreferenced(database, storage, identifier, url, kind, deletion)
    has_deleted = bool(rows or deletion.local_files or deletion.bucket_files or deletion.errors)
    has_redis_answered = options.skip_redis or await _delete_video_keys_in_redis(redis, identifier, deletion)
    if not (has_deleted or deletion.redis_keys):
        raise VideoNotFound if has_redis_answered else RedisUnavailable
    return deletion


async def _map_file_urls_to_kinds(storage: Storage, identifier: str, options: DeletionOptions) -> dict[str, str]:
    """Return the kind (`video`, `clip`, …) by URL of each file in the video's folders that the options do not keep."""
    in_bucket = is_google_storage_url(storage.url_of(video_folder_key(identifier)))
    folders = {
        "video": None if options.skip_local_video else video_folder_key(identifier),
        "playable": None if options.skip_local_video else playable_folder_key(identifier),
        "thumbnail": None if options.skip_local_thumbnail else thumbnail_folder_key(identifier),
        "audio": None if options.keeps_audio(in_bucket) else audio_folder_key(identifier),
        "clip": None if options.keeps_clips(in_bucket) else clip_folder_key(identifier),
    }
    return {file.url: kind for kind, folder in folders.items() if folder for file in await storage.list_files(folder)}


async def _delete_and_count_file_if_unreferenced(
    database: Database, storage: Storage, identifier: str, url: str, kind: str, deletion: VideoDeletionResult
) -> None:
    # Locked: an upload that has just stored the file inserts its row later and finds the file deleted.
    async with database.connect() as conn, conn.transaction():
        videos = VideoRepository(conn)
        await videos.lock_video_identifier(identifier)
        if not await videos.is_file_referenced(identifier, url):
            await _delete_and_count_video_file(storage, url, kind, deletion, is_locked=True)


async def _delete_and_count_video_file(
    storage: Storage, url: str, kind: str, deletion: VideoDeletionResult, *, is_locked: bool = False
) -> None:
    try:
        async with limit_storage_time() if is_locked else nullcontext():
            is_deleted = await storage.delete(url)
        if is_deleted:
            (deletion.bucket_files if is_google_storage_url(url) else deletion.local_files)[kind] += 1
    except VideoMomentsError as error:
        _log.warning("Could not delete %s: %s", url, error)
        deletion.errors.append(f"{_FILE_KINDS[kind]} could not be deleted: {error}")


async def _delete_video_keys_in_redis(redis: Redis, identifier: str, deletion: VideoDeletionResult) -> bool:
    """Count the deleted keys, or the failure, in `deletion`. Return whether Redis answered."""
    try:
        async with asyncio.timeout(_REDIS_TIMEOUT):  # only the ping: the deletion takes longer the more keys there are
            await redis.ping()
        deletion.redis_keys = await delete_and_count_redis_keys_of_video(redis, identifier, deletion.rows.runs)
    except (RedisError, OSError) as error:
        _log.warning("Could not delete the live state of %r: %s", identifier, describe_redis_error(error))
        reason = translate_redis_error(error) or RedisUnavailable()
        deletion.errors.append(f"The live state could not be deleted: {reason}")
        return False
    return True


@dataclass(slots=True)
class MomentDeletionResult:
    """The result of deleting a moment: what it had, how many files were deleted, and children without a parent now."""

    had_clip: bool = False
    had_thumbnail: bool = False
    files: int = 0
    orphaned: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def delete_moment(
    database: Database, storage: Storage, video_identifier: str, identifier: str
) -> MomentDeletionResult:
    """Delete a moment and its files, or the rest of an interrupted deletion; return what was deleted and failed."""
    deletion = MomentDeletionResult()
    async with database.connect() as conn, conn.transaction():
        _, moment = await lock_video_and_moment(conn, video_identifier, identifier)
        urls = await _delete_moment_and_clip_rows(conn, moment, deletion) if moment else []
    try:
        urls += await _list_file_urls_of_moment(storage, video_identifier, identifier)
    except VideoMomentsError as error:
        if moment is None:
            raise
        deletion.errors.append(str(error))
    for url in dict.fromkeys(urls):
        await _delete_and_count_moment_file_if_unreferenced(database, storage, video_identifier, url, deletion)
    if moment is None and not deletion.files and not deletion.errors:
        raise MomentNotFound
    return deletion


async def _delete_moment_and_clip_rows(conn: Connection, moment: Moment, deletion: MomentDeletionResult) -> list[str]:
    """Delete the rows, note in `deletion` what there was, and return the URLs of the clip and its thumbnail."""
    clip = await ClipRepository(conn).get_by_moment(moment.id)
    thumbnail = await ThumbnailRepository(conn).get_by_clip(clip.id) if clip else None
    moments = MomentRepository(conn)
    deletion.orphaned = [
        child.identifier for child in await moments.list_refinements_of(moment.id) if child.id != moment.id
    ]
    await moments.delete(moment.id)
    deletion.had_clip, deletion.had_thumbnail = clip is not None, thumbnail is not None
    return [row.cloud_url for row in (clip, thumbnail) if row]


async def _list_file_urls_of_moment(storage: Storage, video_identifier: str, identifier: str) -> list[str]:
    if not _MOMENT_IDENTIFIER.fullmatch(identifier):  # a short identifier would match other moments' files
        return []
    pattern = re.compile(f"(?<![0-9a-z]){identifier}(?![0-9a-z])")
    folders = (clip_folder_key(video_identifier), thumbnail_folder_key(video_identifier))
    files = [file for folder in folders for file in await storage.list_files(folder)]
    return [file.url for file in files if pattern.search(PurePosixPath(unquote(urlsplit(file.url).path)).stem)]


async def _delete_and_count_moment_file_if_unreferenced(
    database: Database, storage: Storage, video_identifier: str, url: str, deletion: MomentDeletionResult
) -> None:
    async with database.connect() as conn:
        if await VideoRepository(conn).is_file_referenced(video_identifier, url):
            return
    try:
        deletion.files += await storage.delete(url)
    except VideoMomentsError as error:
        deletion.errors.append(str(error))
