"""The stage that stores the clips of a video's moments: each file, then its row."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from app.core.errors import DatabaseUnavailable, RunLost, StageFailed, VideoDeleted, VideoMomentsError
from app.core.thread_pool import ThreadPool
from app.database import Connection
from app.media.probe import MediaInfo, NotMedia, probe_media
from app.pipeline.context import RunContext
from app.pipeline.files import delete_unused_files
from app.pipeline.moments import list_file_urls_of_video
from app.pipeline.stages.clips import ClipTarget, are_clips_unneeded_by_refinement_model, cut_clips, plan_clips
from app.repositories import ClipRepository, MomentRepository
from app.storage import StoredFile

_probes = ThreadPool("clip-probes", 2)


class _MomentChanged(StageFailed):
    """The moment was deleted or got other times while its clip was made."""

    def __init__(self) -> None:
        super().__init__("The moment was changed while its clip was made")


@dataclass(slots=True)
class _ClipUploadProgress:
    """How many clips and bytes of a run were stored so far; the names are those of the reported counters."""

    total_clips: int
    total_bytes: int
    current_clip: int = 0
    bytes_uploaded: int = 0

    def add_bytes(self, context: RunContext, stored_bytes: int) -> None:
        self.bytes_uploaded += stored_bytes
        self.report_to(context)

    def report_to(self, context: RunContext) -> None:
        percentage = 100 * self.bytes_uploaded // self.total_bytes if self.total_bytes else 0
        context.report_progress(**asdict(self), percentage=percentage)


async def skip_reason(context: RunContext) -> str | None:
    """Return why no clips are to be stored: no moments, all stored, or none needed; else None."""
    if await are_clips_unneeded_by_refinement_model(context):
        return "Refinement model does not support video"
    plan = await plan_clips(context)
    if not plan.originals:
        return "No moments to upload clips for"
    return None if plan.targets else "All clips already uploaded"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Store the missing clips of the moments, and return how many were stored and failed."""
    targets = (await plan_clips(context)).targets
    await cut_clips(context, targets)  # another machine may have cut them, whose folder is not here
    sizes = {
        target: size for target in targets if (size := await asyncio.to_thread(_read_clip_size, target)) is not None
    }
    progress = _ClipUploadProgress(len(sizes), sum(sizes.values()))
    failures: list[VideoMomentsError] = []
    for target, size in sizes.items():
        progress.current_clip += 1
        before = progress.bytes_uploaded
        try:
            await _store_clip_file_and_row(context, target, partial(progress.add_bytes, context))
        except (RunLost, DatabaseUnavailable):
            raise
        except VideoMomentsError as failure:
            failures.append(failure)
        progress.bytes_uploaded = before + size
        progress.report_to(context)
    if failures and len(failures) == len(sizes):
        raise failures[0]
    return _make_upload_result(len(sizes), failures)


async def _store_clip_file_and_row(
    context: RunContext, target: ClipTarget, on_bytes_stored: Callable[[int], None]
) -> None:
    try:
        info = await _probes.run(probe_media, target.path)
    except NotMedia as error:
        raise StageFailed(f"The clip that was cut cannot be used: {error}") from None
    stored = await context.storage.put(target.key, target.path, on_bytes_stored)
    try:
        unused_urls = await context.save_result(partial(_replace_clip_row, target=target, stored=stored, info=info))
    except (VideoDeleted, _MomentChanged):
        await delete_unused_files(context, [stored.url])  # no row will ever name it
        raise
    await delete_unused_files(context, unused_urls)


async def _replace_clip_row(conn: Connection, target: ClipTarget, stored: StoredFile, info: MediaInfo) -> set[str]:
    """Insert the row of a clip, in place of the moment's old one; return the URLs of files that no row names any more.

    The new row has another id: a thumbnail that is being made of the old clip must not become that of the new one.
    """
    moment = await MomentRepository(conn).get(target.moment.id)
    times = (target.moment.start_time, target.moment.end_time)
    if moment is None or (moment.start_time, moment.end_time) != times:
        raise _MomentChanged
    clips, before = ClipRepository(conn), await list_file_urls_of_video(conn, moment.video_id)
    if (old := await clips.get_by_moment(moment.id)) is not None:
        await clips.delete(old.id)
    await clips.create(
        moment_id=moment.id,
        video_id=moment.video_id,
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
    return before - await list_file_urls_of_video(conn, moment.video_id)


def _read_clip_size(target: ClipTarget) -> int | None:
    try:
        return target.path.stat().st_size
    except FileNotFoundError:
        return None


def _make_upload_result(total: int, failures: Sequence[VideoMomentsError]) -> Mapping[str, Any]:
    result: dict[str, Any] = {"total": total, "clips": total - len(failures), "failed": len(failures)}
    if failures:
        reasons = "; ".join(dict.fromkeys(map(str, failures)))
        result["reason"] = f"{len(failures)} of {total} clips could not be stored: {reasons}"
    return result
