"""The stage that extracts the audio of a video as WAV for the transcribers."""

import asyncio
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import FileMissing, StageFailed
from app.core.thread_pool import ThreadPool
from app.media.audio import WAV_BYTES_PER_SECOND, extract_audio, wav_duration
from app.media.container import max_plausible_duration
from app.pipeline.context import RunContext
from app.pipeline.files import AUDIO_NAME, describe_early_end_of_video, get_video_file_url, is_audio_stored
from app.storage import check_free_space

_extractors = ThreadPool("audio", 8)


async def skip_reason(context: RunContext) -> str | None:
    """Return that the store has the audio of the video already, or None."""
    return "Audio file already exists" if await is_audio_stored(context) else None


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Extract the audio of the video into the run's folder, and return its duration."""
    path = await extract_audio_once(context)
    result = {"seconds": round(await asyncio.to_thread(wav_duration, path), 3)}
    problem = await describe_early_end_of_video(context)
    return {**result, "reason": problem} if problem else result


async def extract_audio_once(context: RunContext) -> Path:
    """Return the path of the WAV in the run's folder, which is extracted from the video unless it exists."""
    target = context.folder / AUDIO_NAME
    if not await asyncio.to_thread(target.is_file):
        url = await get_video_file_url(context)
        await _check_space_for_audio(context, url, target)
        await _extractors.run_in_slot(partial(_extract_stored_audio, context, url, target))
    return target


async def _check_space_for_audio(context: RunContext, video_url: str, target: Path) -> None:
    video = await context.find_video()
    known_seconds = (video and video.duration_seconds) or 0.0
    longest = max_plausible_duration((await context.storage.stat(video_url)).size)
    seconds = min(known_seconds, longest, context.settings.max_video_hours * 3600)
    await asyncio.to_thread(check_free_space, target.parent, seconds * WAV_BYTES_PER_SECOND, "the audio of the video")


def _extract_stored_audio(context: RunContext, video_url: str, target: Path, stop_event: threading.Event) -> None:
    max_hours = context.settings.max_video_hours
    try:
        with context.storage.open_blocking(video_url) as video_file:
            extract_audio(video_file, target, stop_event, context.report_share, max_hours=max_hours)
    except FileMissing:
        raise StageFailed("The file of the video went away while its audio was extracted") from None
