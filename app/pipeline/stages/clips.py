"""The stage that cuts the clips of a video's moments."""

import asyncio
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from app.ai.protocols import Word
from app.core.errors import FileMissing, RunLost, StageFailed, VideoDeleted, VideoMomentsError
from app.core.thread_pool import ThreadPool
from app.media.clip import cut_clip
from app.models import Clip, Moment
from app.models.stages import RunType
from app.models.videos import describe_moment_after_video_end
from app.pipeline.context import RunContext
from app.pipeline.files import get_video_file_url, is_file_stored
from app.pipeline.transcripts import find_moment_window, list_timed_words
from app.repositories import ClipRepository, MomentRepository, TranscriptRepository, VideoRepository
from app.storage import Storage, check_free_space, clip_folder_key, storable_name

_FOLDER = "clips"
_FAILURE_SUFFIX = ".failed"
_MAX_PARALLEL = min(4, os.cpu_count() or 1)  # of one run; an encoder uses several cores by itself
_BYTES_PER_SECOND = {".mp4": 250_000, ".m4a": 20_000}  # estimates; of video in high definition
_cutters = ThreadPool("clips", 16)


@dataclass(slots=True)
class _ClipCounts:
    """The clips of a run: `kept` existed before; `reasons` are the distinct reasons of failures."""

    total: int
    kept: int
    cut: int = 0
    failed: int = 0
    reasons: dict[str, None] = field(default_factory=dict)

    def add_clip(self, context: RunContext, failure: StageFailed | None) -> None:
        if failure is None:
            self.cut += 1
        else:
            self.failed += 1
            self.reasons[str(failure)] = None
        self.report_to(context)

    def report_to(self, context: RunContext) -> None:
        context.report_progress(total=self.total, processed=self.kept + self.cut + self.failed, failed=self.failed)


async def skip_reason(context: RunContext) -> str | None:
    """Return why no clips are to be cut: no moments, all stored, or none needed; else None."""
    if await are_clips_unneeded_by_refinement_model(context):
        return "Refinement model does not support video"
    plan = await plan_clips(context)
    if not plan.originals:
        return "No moments to extract clips from"
    return None if plan.targets else "All clips already extracted"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Cut the missing clips into the run's folder, and return how many were cut and failed."""
    plan = await plan_clips(context)
    counts = _ClipCounts(plan.originals, plan.originals - len(plan.targets))
    counts.report_to(context)
    await cut_clips(context, plan.targets, partial(counts.add_clip, context))
    if counts.failed and not counts.cut:
        raise StageFailed(next(iter(counts.reasons)))
    return _make_clips_result(counts)


def _make_clips_result(counts: _ClipCounts) -> Mapping[str, Any]:
    result: dict[str, Any] = {"total": counts.total, "clips": counts.cut, "failed": counts.failed}
    if counts.failed:
        result["reason"] = f"{counts.failed} of {counts.total} clips could not be cut: {'; '.join(counts.reasons)}"
    return result


@dataclass(frozen=True, slots=True)
class ClipTarget:
    """A clip to cut: its times in seconds of the video, its key in the store, and its path in the run's folder."""

    moment: Moment
    start: float
    end: float
    key: str
    path: Path
    problem: str | None = None  # why it cannot be cut


@dataclass(frozen=True, slots=True)
class MissingClips:
    """The clips to cut, and the number of all original moments of the video."""

    targets: Sequence[ClipTarget]
    originals: int


@dataclass(frozen=True, slots=True)
class _ClipInputs:
    """The rows from which the clips of a video are planned, and the extension of their files."""

    moments: Sequence[Moment]
    clips: dict[int, Clip]
    words: Sequence[Word]
    duration_seconds: float | None
    extension: str


async def are_clips_unneeded_by_refinement_model(context: RunContext) -> bool:
    if context.run.type is not RunType.FULL:
        return False
    try:
        finder = await context.models.get_finder(context.run.request.refinement_model)
    except VideoMomentsError:  # the refinement stage reports it
        return False
    return not (finder.is_local or finder.supports_video)


async def plan_clips(context: RunContext) -> MissingClips:
    """Plan the clips of originals without a stored clip, or, with override, of those not yet stored by this run."""
    inputs = await _read_clip_inputs(context)
    targets = [_plan_clip(context, moment, inputs) for moment in inputs.moments]
    missing = [target for target in targets if await _is_clip_missing(context, target, inputs.clips)]
    return MissingClips(missing, len(targets))


async def cut_clips(
    context: RunContext, targets: Sequence[ClipTarget], report_clip: Callable[[StageFailed | None], None] | None = None
) -> None:
    """Cut the clips that are not in the run's folder, several in parallel; `report_clip` gets each failure, or None.

    A clip that failed on this machine is not tried again. Raises `StageFailed` where the video file is missing.
    """
    url, waiting = await get_video_file_url(context), deque(targets)
    await asyncio.to_thread((context.folder / _FOLDER).mkdir, exist_ok=True)
    await asyncio.to_thread(_check_space_for_clips, context.folder, targets)

    async def cut_next_clips() -> None:
        while waiting:
            failure = await _cut_clip_or_return_failure(context.storage, url, waiting.popleft())
            if report_clip:
                report_clip(failure)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_MAX_PARALLEL, len(targets))):
            group.create_task(cut_next_clips())


def _check_space_for_clips(folder: Path, targets: Sequence[ClipTarget]) -> None:
    missing = [target for target in targets if not target.path.is_file() and not target.problem]
    needed = sum((target.end - target.start) * _BYTES_PER_SECOND[target.path.suffix] for target in missing)
    check_free_space(folder, needed, "the clips of the video")


async def _read_clip_inputs(context: RunContext) -> _ClipInputs:
    async with context.database.connect() as conn:
        video = await VideoRepository(conn).get(context.run.video_id)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        clips = await ClipRepository(conn).list_by_video(context.run.video_id)
        transcript = await TranscriptRepository(conn).get_by_video(context.run.video_id)
    if video is None:
        raise VideoDeleted
    return _ClipInputs(
        [moment for moment in moments if not moment.is_refined],
        {clip.moment_id: clip for clip in clips},
        list_timed_words(transcript) if transcript else (),
        video.duration_seconds,
        ".m4a" if video.is_audio_only else ".mp4",
    )


def _plan_clip(context: RunContext, moment: Moment, inputs: _ClipInputs) -> ClipTarget:
    window = find_moment_window(inputs.words, moment.start_time, moment.end_time, inputs.duration_seconds)
    start, end = round(window.start, 3), round(window.end, 3)
    video = context.run.video
    # The name depends on run and window: no file that a row refers to is overwritten, and another worker that takes the
    # run over finds the clips that it cut.
    version = hashlib.sha256(f"{context.run.identifier} {start} {end}".encode()).hexdigest()[:8]
    key = f"{clip_folder_key(video)}/{storable_name(video)}_{moment.identifier}_{version}_clip{inputs.extension}"
    path = context.folder / _FOLDER / f"{moment.identifier}_{version}{inputs.extension}"
    problem = describe_moment_after_video_end(moment.end_time, inputs.duration_seconds)
    return ClipTarget(moment, start, end, key, path, problem)


async def _is_clip_missing(context: RunContext, target: ClipTarget, clips: dict[int, Clip]) -> bool:
    clip = clips.get(target.moment.id)
    if clip is None:
        return True
    if clip.cloud_url == context.storage.url_of(target.key):
        return False
    return context.run.request.override_existing_clips or not await is_file_stored(context, clip.cloud_url)


async def _cut_clip_or_return_failure(storage: Storage, video_url: str, target: ClipTarget) -> StageFailed | None:
    try:
        await _cutters.run_in_slot(partial(_cut_clip_once, storage, video_url, target))
    except RunLost:
        raise
    except StageFailed as failure:
        return failure
    return None


def _cut_clip_once(storage: Storage, video_url: str, target: ClipTarget, stop_event: threading.Event) -> None:
    """Cut one clip unless it is there; raise the failure of an earlier attempt, which is kept in a file, again."""
    if target.path.is_file():
        return
    failure_file = target.path.with_suffix(_FAILURE_SUFFIX)
    if failure_file.is_file():
        raise StageFailed(failure_file.read_text("utf-8"))
    try:
        _cut_clip_from_stored_video(storage, video_url, target, stop_event)
    except StageFailed as failure:
        failure_file.write_text(str(failure), "utf-8")
        raise


def _cut_clip_from_stored_video(
    storage: Storage, video_url: str, target: ClipTarget, stop_event: threading.Event
) -> None:
    if target.problem:
        raise StageFailed(target.problem)
    try:
        with storage.open_blocking(video_url) as video_file:
            cut_clip(video_file, target.start, target.end, target.path, stop_event)
    except FileMissing:
        raise StageFailed("The file of the video went away while clips were cut out of it") from None
