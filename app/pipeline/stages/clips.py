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
from app.media.clip import cut_clip
from app.models import Clip, Moment
from app.models.stages import RunType
from app.models.video import describe_moment_outside
from app.pipeline.context import RunContext
from app.pipeline.files import get_video_file_url
from app.pipeline.transcripts import find_moment_window, list_timed_words
from app.repositories import ClipRepository, MomentRepository, TranscriptRepository, VideoRepository
from app.storage import Storage, check_free_space, clip_folder, name_of
from app.storage.workers import Workers

_FOLDER = "clips"
_FAILED = ".failed"
_AT_ONCE = min(4, os.cpu_count() or 1)  # of one run; an encoder uses several cores by itself
_BYTES_PER_SECOND = {".mp4": 250_000, ".m4a": 20_000}  # of clips, about, those with a picture in high definition
_cutters = Workers("clips", 16)


@dataclass(slots=True)
class _Tally:
    """How far it is: clips that were there before, that were cut, and why others were not, each reason once."""

    total: int
    kept: int
    cut: int = 0
    failed: int = 0
    reasons: dict[str, None] = field(default_factory=dict)

    def count(self, failure: StageFailed | None) -> None:
        if failure is None:
            self.cut += 1
        else:
            self.failed += 1
            self.reasons[str(failure)] = None

    def report(self, context: RunContext) -> None:
        context.report(total=self.total, processed=self.kept + self.cut + self.failed, failed=self.failed)


async def skip_reason(context: RunContext) -> str | None:
    if await are_clips_unneeded(context):
        return "Refinement model does not support video"
    plan = await plan_clips(context)
    if not plan.originals:
        return "No moments to extract clips from"
    return None if plan.targets else "All clips already extracted"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    plan = await plan_clips(context)
    tally = _Tally(plan.originals, plan.originals - len(plan.targets))
    tally.report(context)

    def told(failure: StageFailed | None) -> None:
        tally.count(failure)
        tally.report(context)

    await cut_clips(context, plan.targets, told)
    if tally.failed and not tally.cut:
        raise StageFailed(next(iter(tally.reasons)))
    return _describe(tally)


def _describe(tally: _Tally) -> Mapping[str, Any]:
    described: dict[str, Any] = {"total": tally.total, "clips": tally.cut, "failed": tally.failed}
    if tally.failed:
        described["reason"] = f"{tally.failed} of {tally.total} clips could not be cut: {'; '.join(tally.reasons)}"
    return described


@dataclass(frozen=True, slots=True)
class Target:
    """A clip that is to be made: seconds of the video, the key that it is stored under, and where it is cut to."""

    moment: Moment
    start: float
    end: float
    key: str
    path: Path
    problem: str | None = None  # why it cannot be made


@dataclass(frozen=True, slots=True)
class Plan:
    """The clips that are missing, and how many original moments there are in all."""

    targets: Sequence[Target]
    originals: int


@dataclass(frozen=True, slots=True)
class _Material:
    moments: Sequence[Moment]
    clips: dict[int, Clip]
    words: Sequence[Word]
    duration_seconds: float | None
    extension: str


async def are_clips_unneeded(context: RunContext) -> bool:
    """Whether a service that cannot be shown clips refines the moments; where this machine does, people want them."""
    if context.run.type is not RunType.FULL:
        return False
    try:
        finder = await context.models.get_finder(context.run.request.refinement_model)
    except VideoMomentsError:  # the stage that needs the model tells it
        return False
    return not (finder.is_local or finder.supports_video)


async def plan_clips(context: RunContext) -> Plan:
    """Return what is to be cut: each original that has no clip, or, with override, none that this run has made.

    Raises `StorageUnavailable`.
    """
    material = await _read_material(context)
    targets = [_target(context, moment, material) for moment in material.moments]
    missing = [target for target in targets if await _is_missing(context, target, material.clips)]
    return Plan(missing, len(targets))


async def cut_clips(
    context: RunContext, targets: Sequence[Target], told: Callable[[StageFailed | None], None] | None = None
) -> None:
    """Cut what does not lie in the run's folder, several at once, and tell of each why it failed, or None.

    What has failed before on this machine fails again at once. Raises `StageFailed` where the film is missing,
    `StorageFull`, `StorageUnavailable`, and `OSError` for the folder.
    """
    url, waiting = await get_video_file_url(context), deque(targets)
    await asyncio.to_thread((context.folder / _FOLDER).mkdir, exist_ok=True)
    await asyncio.to_thread(_check_free_space, context.folder, targets)

    async def cut_waiting() -> None:
        while waiting:
            failure = await _cut(context.storage, url, waiting.popleft())
            if told:
                told(failure)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_AT_ONCE, len(targets))):
            group.create_task(cut_waiting())


def _check_free_space(folder: Path, targets: Sequence[Target]) -> None:
    """Raise `StorageFull` where the clips do not fit on the disk."""
    missing = [target for target in targets if not target.path.is_file() and not target.problem]
    needed = sum((target.end - target.start) * _BYTES_PER_SECOND[target.path.suffix] for target in missing)
    check_free_space(folder, needed, "the clips of the video")


async def _read_material(context: RunContext) -> _Material:
    async with context.database.connect() as conn:
        video = await VideoRepository(conn).get(context.run.video_id)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        clips = await ClipRepository(conn).list_by_video(context.run.video_id)
        transcript = await TranscriptRepository(conn).get_by_video(context.run.video_id)
    if video is None:
        raise VideoDeleted
    return _Material(
        [moment for moment in moments if not moment.is_refined],
        {clip.moment_id: clip for clip in clips},
        list_timed_words(transcript) if transcript else (),
        video.duration_seconds,
        ".m4a" if video.is_audio_only else ".mp4",
    )


def _target(context: RunContext, moment: Moment, material: _Material) -> Target:
    window = find_moment_window(material.words, moment.start_time, moment.end_time, material.duration_seconds)
    start, end = round(window.start, 3), round(window.end, 3)
    video = context.run.video
    # Another name for each run and window: nothing is overwritten that a row refers to, and who takes the run over
    # knows what was made in it.
    version = hashlib.sha256(f"{context.run.identifier} {start} {end}".encode()).hexdigest()[:8]
    key = f"{clip_folder(video)}/{name_of(video)}_{moment.identifier}_{version}_clip{material.extension}"
    path = context.folder / _FOLDER / f"{moment.identifier}_{version}{material.extension}"
    problem = describe_moment_outside(moment.end_time, material.duration_seconds)
    return Target(moment, start, end, key, path, problem)


async def _is_missing(context: RunContext, target: Target, clips: dict[int, Clip]) -> bool:
    clip = clips.get(target.moment.id)
    if clip is None:
        return True
    if clip.cloud_url == context.storage.url_of(target.key):
        return False
    if context.run.request.override_existing_clips:
        return True
    try:
        await context.storage.stat(clip.cloud_url)
    except FileMissing:
        return True
    return False


async def _cut(storage: Storage, url: str, target: Target) -> StageFailed | None:
    stopping = threading.Event()
    cutting = partial(_cut_once, storage, url, target, stopping)
    try:
        await _cutters.run_in_turn(cutting, on_cancel=stopping.set)
    except RunLost:
        raise
    except StageFailed as failure:
        return failure
    return None


def _cut_once(storage: Storage, url: str, target: Target, stopping: threading.Event) -> None:
    if target.path.is_file():
        return
    note = target.path.with_suffix(_FAILED)
    if note.is_file():
        raise StageFailed(note.read_text("utf-8"))
    try:
        _cut_now(storage, url, target, stopping)
    except StageFailed as failure:
        note.write_text(str(failure), "utf-8")
        raise


def _cut_now(storage: Storage, url: str, target: Target, stopping: threading.Event) -> None:
    if target.problem:
        raise StageFailed(target.problem)
    try:
        with storage.open(url) as film:
            cut_clip(film, target.start, target.end, target.path, stopping)
    except FileMissing:
        raise StageFailed("The file of the video went away while clips were cut out of it") from None
