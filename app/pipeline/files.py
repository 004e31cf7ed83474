"""The files of a run: those in its temporary folder, and those of its video in the store."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from app.core.errors import FileMissing, StageFailed, VideoMomentsError
from app.models.videos import describe_early_end
from app.pipeline.context import RunContext
from app.repositories import VideoRepository
from app.repositories.media import PlayableCopyRepository
from app.storage import check_free_space, find_audio_file
from app.storage.file_system import path_from_url, translate_write_errors

_log = logging.getLogger(__name__)

AUDIO_NAME = "audio.wav"
_PART_SUFFIX = ".part"


async def get_local_audio(context: RunContext) -> Path:
    """Return the path of the extracted audio of the run's video. Raises `FileMissing` where there is none yet."""
    extracted = context.folder / AUDIO_NAME
    if await asyncio.to_thread(extracted.is_file):
        return extracted
    return await get_local_file(context, await find_audio_file(context.storage, context.run.video), AUDIO_NAME)


async def get_local_file(context: RunContext, url: str, name: str) -> Path:
    """Return the path of a stored file, which is copied as `name` into the run's folder from a bucket."""
    path = await find_local_path(context, url)
    if path is not None:
        return path
    copy = context.folder / name
    if not await asyncio.to_thread(copy.is_file):
        await _copy_stored_file(context, url, copy)
    return copy


async def is_file_stored(context: RunContext, url: str) -> bool:
    try:
        await context.storage.stat(url)
    except FileMissing:
        return False
    return True


async def is_audio_stored(context: RunContext) -> bool:
    try:
        await find_audio_file(context.storage, context.run.video)
    except FileMissing:
        return False
    return True


async def find_local_path(context: RunContext, url: str) -> Path | None:
    """Return the path of a file that is stored on this machine, None for one in a bucket. Raises `FileMissing`."""
    if not url.startswith("file:"):
        return None
    await context.storage.stat(url)  # which checks that the file may be read
    return path_from_url(url)


async def _copy_stored_file(context: RunContext, url: str, target: Path) -> None:
    part, size = target.with_name(target.name + _PART_SUFFIX), 0
    async with context.storage.open_async(url) as file:
        await asyncio.to_thread(check_free_space, part.parent, file.stored.size, "the file")
        with translate_write_errors(), await asyncio.to_thread(part.open, "wb") as part_file:
            async for chunk in file.read():
                size += await asyncio.to_thread(part_file.write, chunk)
        if size != file.stored.size:  # it was replaced or deleted while it was read
            raise FileMissing
    part.replace(target)


async def describe_early_end_of_video(context: RunContext) -> str | None:
    async with context.database.connect() as conn:
        video = await VideoRepository(conn).get(context.run.video_id)
        early_end = await PlayableCopyRepository(conn).get_early_end(context.run.video_id)
    return describe_early_end(video.duration_seconds, *early_end) if video else None


async def get_video_file_url(context: RunContext) -> str:
    video = await context.get_video()
    if not await is_file_stored(context, video.cloud_url):
        raise StageFailed("The file of the video is missing")
    return video.cloud_url


async def delete_unused_files(context: RunContext, urls: Iterable[str]) -> None:
    for url in urls:
        try:
            await context.storage.delete(url)
        except VideoMomentsError as error:
            _log.warning("Could not delete the file of a replaced clip: %s", error)
