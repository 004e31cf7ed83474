"""Which rows of a video a deletion takes, and which a client asked to keep."""

from dataclasses import dataclass, field

from app.core.errors import PipelineActive
from app.database import Connection
from app.models import Video
from app.repositories import GenerationConfigRepository, ThumbnailRepository, TranscriptRepository, VideoRepository
from app.repositories.contents import FileReference, ReplacedMomentsRepository, VideoContents, VideoContentsRepository
from app.services.cancelling import cancel_runs


@dataclass(frozen=True, slots=True)
class Skips:
    """What to keep. Rows belong to their video: where one is kept, the video and its file are kept too."""

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

    def keep_audio(self, in_bucket: bool) -> bool:
        return self.skip_gcs_audio if in_bucket else self.skip_local_audio

    def keep_clips(self, in_bucket: bool) -> bool:
        return self.skip_gcs_clips if in_bucket else self.skip_local_clips


@dataclass(frozen=True, slots=True)
class DeletedRows:
    """What is gone from the tables; `files` are those whose rows are gone, `runs` those that the video has had."""

    files: list[FileReference] = field(default_factory=list)
    transcript: bool = False
    moments: bool = False
    source_url: bool = False
    runs: list[str] = field(default_factory=list)


def is_in_bucket(url: str) -> bool:
    return url.startswith("gs://")


async def delete_rows(conn: Connection, identifier: str, skips: Skips) -> DeletedRows | None:
    """Delete a video's rows inside the caller's transaction; None where there is no such video.

    Raises `PipelineActive`.
    """
    video = await VideoRepository(conn).lock_for_deletion(identifier)
    if video is None:
        return None
    parts = await VideoContentsRepository(conn).get(video.id)
    if parts.active_status is not None:
        if not skips.force:
            raise PipelineActive(parts.active_status)
        await cancel_runs(conn, identifier)
    files = await VideoContentsRepository(conn).list_files(video.id)
    if parts.transcript_id is not None and not skips.skip_local_transcript:
        # Others may use its configs, and their moments would go with those.
        await GenerationConfigRepository(conn).detach_transcript(parts.transcript_id)
    if _keeps_something(skips, parts, files):
        return await _delete_parts(conn, video, skips, parts, files)
    await VideoRepository(conn).delete(video.id)
    return DeletedRows(
        files, parts.transcript_id is not None, parts.moments > 0, video.source_url is not None, parts.runs
    )


def _keeps_something(skips: Skips, parts: VideoContents, files: list[FileReference]) -> bool:
    return (
        skips.skip_local_video
        or (skips.skip_local_transcript and parts.transcript_id is not None)
        or (skips.skip_local_moments and parts.moments > 0)
        or (skips.skip_local_thumbnail and any(file.kind == "thumbnail" for file in files))
        or any(file.kind == "clip" and skips.keep_clips(is_in_bucket(file.url)) for file in files)
    )


async def _delete_parts(
    conn: Connection, video: Video, skips: Skips, parts: VideoContents, files: list[FileReference]
) -> DeletedRows:
    """Delete what is not kept of a video that stays itself."""
    gone = await _delete_clips(conn, skips, files)
    await _forget_replaced(conn, video, skips)
    moments = (
        0 if skips.skip_local_moments else await VideoContentsRepository(conn).delete_moments_without_clip(video.id)
    )
    if not skips.skip_local_thumbnail:
        for file in (file for file in files if file.kind == "thumbnail"):
            await ThumbnailRepository(conn).delete(file.owner_id)
            gone.append(file)
    transcript = not skips.skip_local_transcript and await TranscriptRepository(conn).delete_by_video(video.id)
    forgets = video.source_url is not None and not skips.skip_registry
    if forgets:
        await VideoRepository(conn).update(video.id, source_url=None)
    return DeletedRows(gone, transcript, moments > 0, forgets, parts.runs)


async def _forget_replaced(conn: Connection, video: Video, skips: Skips) -> None:
    """Forget what a run that is being cancelled would bring back."""
    replaced = ReplacedMomentsRepository(conn)
    if skips.skip_local_moments:
        local, in_bucket = skips.keep_clips(in_bucket=False), skips.keep_clips(in_bucket=True)
        await replaced.forget_clips(video.id, keep_local=local, keep_in_bucket=in_bucket)
    else:
        await replaced.forget_all(video.id)


async def _delete_clips(conn: Connection, skips: Skips, files: list[FileReference]) -> list[FileReference]:
    """Delete the clips that are not kept and return their files, those of their thumbnails with them."""
    clips = {file.owner_id for file in files if file.kind == "clip" and not skips.keep_clips(is_in_bucket(file.url))}
    await VideoContentsRepository(conn).delete_clips(sorted(clips))
    return [file for file in files if file.kind in ("clip", "clip_thumbnail") and file.owner_id in clips]
