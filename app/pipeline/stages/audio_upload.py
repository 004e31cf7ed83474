"""The stage that stores the extracted audio of a video."""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.core.errors import VideoDeleted
from app.pipeline.context import RunContext
from app.pipeline.files import is_audio_stored
from app.pipeline.stages.audio import extract_audio_once
from app.storage import audio_folder_key, storable_name


async def skip_reason(context: RunContext) -> str | None:
    """Return that the audio is stored already, or None."""
    return "Audio file is already stored" if await is_audio_stored(context) else None


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Store the extracted audio of the video, and return its size."""
    path = await extract_audio_once(context)  # another machine may have extracted it, whose folder is not here
    total = (await asyncio.to_thread(path.stat)).st_size
    sent = 0

    def count_stored_bytes(stored_bytes: int) -> None:
        nonlocal sent
        sent += stored_bytes
        context.report_progress(bytes_uploaded=sent, total_bytes=total, percentage=100 * sent // total)

    video = context.run.video
    key = f"{audio_folder_key(video)}/{storable_name(video)}.wav"
    stored = await context.storage.put(key, path, count_stored_bytes)
    try:
        async with context.claim_transaction():
            pass
    except VideoDeleted:
        await context.storage.delete(stored.url)
        raise
    return {"bytes": stored.size}
