"""The stage that stores the clips of a video's moments: each file, then its row."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from app.core.errors import DatabaseUnavailable, RunLost, StageFailed, VideoDeleted, VideoMomentsError
from app.core.thread_pool import ThreadPool
from app.database import Connection
from app.media.probe import MediaInfo, NotAVideo, probe_media
from app.pipeline.context import RunContext
from app.pipeline.files import delete_unused_files
from app.pipeline.stages.clips import ClipTarget, are_clips_unneeded, cut_clips, plan_clips
from app.repositories import ClipRepository, MomentRepository
from app.repositories.clips import NewClip
from app.repositories.contents import VideoContentsRepository
from app.storage import StoredFile

_probes = ThreadPool("clip-probes", 2)


class _MomentChanged(StageFailed):
    def __init__(self) -> None:
        super().__init__("The moment was changed while its clip was made")


@dataclass(slots=True)
class _UploadProgress:
    total_clips: int
    total_bytes: int
    current_clip: int = 0
    bytes_uploaded: int = 0

    def report(self, context: RunContext) -> None:
        percentage = 100 * self.bytes_uploaded // self.total_bytes if self.total_bytes else 0
        context.report(
            current_clip=self.current_clip,
            total_clips=self.total_clips,
            bytes_uploaded=self.bytes_uploaded,
            total_bytes=self.total_bytes,
            percentage=percentage,
        )


async def skip_reason(context: RunContext) -> str | None:
    if await are_clips_unneeded(context):
        return "Refinement model does not support video"
    plan = await plan_clips(context)
    if not plan.originals:
        return "No moments to upload clips for"
    return None if plan.targets else "All clips already uploaded"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    targets = (await plan_clips(context)).targets
    await cut_clips(context, targets)  # another machine may have cut them, whose folder is not here
    sizes = {
        target: size for target in targets if (size := await asyncio.to_thread(_read_clip_size, target)) is not None
    }
    progress = _UploadProgress(len(sizes), sum(sizes.values()))
    failures: list[VideoMomentsError] = []
    for target, size in sizes.items():
        progress.current_clip += 1
        before = progress.bytes_uploaded
        if failure := await _upload_clip(context, target, progress):
            failures.append(failure)
        progress.bytes_uploaded = before + size
        progress.report(context)
    if failures and len(failures) == len(sizes):
        raise failures[0]
    return _make_result(len(sizes), failures)


async def _upload_clip(context: RunContext, target: ClipTarget, progress: _UploadProgress) -> VideoMomentsError | None:
    """Store one clip, and return the failure. Raises `RunLost` and `DatabaseUnavailable`."""

    def count(stored: int) -> None:
        progress.bytes_uploaded += stored
        progress.report(context)

    try:
        await _store_clip(context, target, count)
    except (RunLost, DatabaseUnavailable):
        raise
    except VideoMomentsError as failure:
        return failure
    return None


async def _store_clip(context: RunContext, target: ClipTarget, count: Callable[[int], None]) -> None:
    try:
        info = await _probes.run(probe_media, target.path)
    except NotAVideo as error:
        raise StageFailed(f"The clip that was cut cannot be used: {error}") from None
    stored = await context.storage.put(target.key, target.path, count)
    try:
        replaced = await context.save(lambda conn: _replace_clip_row(conn, context.run.video_id, target, stored, info))
    except (VideoDeleted, _MomentChanged):
        await delete_unused_files(context, [stored.url])  # no row will ever name it
        raise
    await delete_unused_files(context, replaced)


async def _replace_clip_row(
    conn: Connection, video_id: int, target: ClipTarget, stored: StoredFile, info: MediaInfo
) -> set[str]:
    moment = await MomentRepository(conn).get(target.moment.id)
    times = (target.moment.start_time, target.moment.end_time)
    if moment is None or (moment.start_time, moment.end_time) != times:
        raise _MomentChanged
    return await _replace_clip(
        conn,
        moment_id=moment.id,
        video_id=video_id,
        cloud_url=stored.url,
        start_time=target.start,
        end_time=target.end,
        padding_left=max(moment.start_time - target.start, 0.0),
        padding_right=max(target.end - moment.end_time, 0.0),
        file_size_kb=info.file_size_kb,
        format=info.format,
        video_codec=info.video_codec,
        audio_codec=info.audio_codec,
        resolution=info.resolution,
    )


def _read_clip_size(target: ClipTarget) -> int | None:
    try:
        return target.path.stat().st_size
    except FileNotFoundError:
        return None


def _make_result(total: int, failures: Sequence[VideoMomentsError]) -> Mapping[str, Any]:
    result: dict[str, Any] = {"total": total, "clips": total - len(failures), "failed": len(failures)}
    if failures:
        reasons = "; ".join(dict.fromkeys(map(str, failures)))
        result["reason"] = f"{len(failures)} of {total} clips could not be stored: {reasons}"
    return result


async def _replace_clip(conn: Connection, **clip: Unpack[NewClip]) -> set[str]:
    """Insert the clip of a moment in place of the one it has, and return the URLs of files without a row.

    The new row has another id: a thumbnail that is being made of the old clip must not become that of the new one.
    """
    parts, clips = VideoContentsRepository(conn), ClipRepository(conn)
    old = await clips.get_by_moment(clip["moment_id"])
    if old is None:
        await clips.create(**clip)
        return set()
    before = {file.url for file in await parts.list_files(clip["video_id"])}
    await clips.delete(old.id)
    await clips.create(**clip)
    return before - {file.url for file in await parts.list_files(clip["video_id"])}
