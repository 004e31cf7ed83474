"""Extracts the sound of a video, as transcribers want it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.core.errors import FileMissing
from app.media.audio import wav_seconds
from app.pipeline.context import RunContext
from app.pipeline.extracting import extract_once
from app.pipeline.files import describe_file_problem
from app.storage import find_audio_file


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
