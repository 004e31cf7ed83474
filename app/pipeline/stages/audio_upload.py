"""The stage that stores the extracted audio of a video."""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.core.errors import FileMissing, VideoDeleted
from app.pipeline.context import RunContext
from app.pipeline.stages.audio import extract_audio_once
from app.storage import StoredFile, audio_folder_key, find_audio_file, storable_name


async def skip_reason(context: RunContext) -> str | None:
    try:
        await find_audio_file(context.storage, context.run.video)
    except FileMissing:
        return None
    return "Audio file is already stored"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    path = await extract_audio_once(context)  # another machine may have extracted it, whose folder is not here
    total = (await asyncio.to_thread(path.stat)).st_size
    sent = 0

    def count(stored: int) -> None:
        nonlocal sent
        sent += stored
        context.report(bytes_uploaded=sent, total_bytes=total, percentage=100 * sent // total)

    video = context.run.video
    stored = await context.storage.put(f"{audio_folder_key(video)}/{storable_name(video)}.wav", path, count)
    await _check_video_exists(context, stored)
    return {"bytes": stored.size}


async def _check_video_exists(context: RunContext, stored: StoredFile) -> None:
    """Delete the stored audio of a video that was deleted meanwhile, and raise `VideoDeleted`."""
    try:
        async with context.commit():
            pass
    except VideoDeleted:
        await context.storage.delete(stored.url)
        raise
