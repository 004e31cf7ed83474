"""The stage that extracts the audio of a video as WAV for the transcribers."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import FileMissing, StageFailed
from app.media.audio import BYTES_PER_SECOND, extract_audio, wav_seconds
from app.media.lengths import longest_seconds
from app.pipeline.context import RunContext
from app.pipeline.files import AUDIO_NAME, describe_file_problem, film_url
from app.repositories import VideoRepository
from app.storage import Storage, check_free_space, find_audio_file
from app.storage.workers import Workers

_extractors = Workers("audio", 8)


async def skip_reason(context: RunContext) -> str | None:
    try:
        await find_audio_file(context.storage, context.run.video)
    except FileMissing:
        return None
    return "Audio file already exists"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    path = await extract_once(context)
    described = {"seconds": round(await asyncio.to_thread(wav_seconds, path), 3)}
    problem = await describe_file_problem(context)
    return {**described, "reason": problem} if problem else described


async def extract_once(context: RunContext) -> Path:
    """Return the sound that lies in the run's folder; where it does not, it is extracted first.

    Raises `StageFailed`, `StorageFull`, `StorageUnavailable`, and `OSError` for the folder.
    """
    target = context.folder / AUDIO_NAME
    if not await asyncio.to_thread(target.is_file):
        url, stopping = await film_url(context), threading.Event()
        await _check_free_space(context, url, target)
        max_hours, report = context.settings.max_video_hours, partial(_report, context)
        extracting = partial(_extract, context.storage, url, target, stopping, report, max_hours)
        await _extractors.run_in_turn(extracting, on_cancel=stopping.set)
    return target


async def _check_free_space(context: RunContext, url: str, target: Path) -> None:
    """Raise `StorageFull` where the audio of the video does not fit on the disk, as far as its length is known."""
    async with context.database.connect() as conn:
        video = await VideoRepository(conn).get(context.run.video_id)
    known = (video and video.duration_seconds) or 0.0
    believed = longest_seconds((await context.storage.stat(url)).size)
    seconds = min(known, believed, context.settings.max_video_hours * 3600)
    await asyncio.to_thread(check_free_space, target.parent, seconds * BYTES_PER_SECOND, "the audio of the video")


def _extract(
    storage: Storage,
    url: str,
    target: Path,
    stopping: threading.Event,
    progress: Callable[[float], None],
    max_hours: float,
) -> None:
    try:
        with storage.open(url) as film:
            extract_audio(film, target, stopping, progress, max_hours=max_hours)
    except FileMissing:
        raise StageFailed("The file of the video went away while its sound was extracted") from None


def _report(context: RunContext, share: float) -> None:
    context.report(percentage=int(share * 100))
