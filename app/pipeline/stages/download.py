"""Brings a film here from its URL."""

import asyncio
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import (
    AddressRefused,
    FileMissing,
    RunLost,
    StageFailed,
    StorageFull,
    StorageUnavailable,
    TransientFailure,
    VideoDeleted,
)
from app.database import Connection
from app.media.lengths import check_hours
from app.media.probe import MediaInfo, NotAVideo, probe
from app.models import Video
from app.pipeline.context import RunContext
from app.pipeline.downloads import PartFile, WebPage, fetch_from_bucket, fetch_over_http
from app.pipeline.files import describe_file_problem, local_file
from app.pipeline.video_pages import can_fetch_from_pages, fetch_from_page
from app.repositories import VideoRepository
from app.repositories.video_files import VideoFileRepository
from app.storage import video_folder
from app.storage.workers import Workers

_PART_NAME = "download.part"
_FILM_NAME = "film"
_PAGE_FOLDER = "page"
# The name of a file whose extension only its content will tell.
_ANNOUNCED = re.compile(r"([0-9a-f]{16})\.[a-z0-9]+")
_probes = Workers("download-probes", 2)


async def skip_reason(context: RunContext) -> str | None:
    video = await _get_video(context)
    if not await _is_here(context, video):
        return None
    # A worker that died may have stored the film and not said so.
    is_described = video.file_size_kb is not None or _url_of(context, video) is None
    if not is_described:
        return None
    problem = await describe_file_problem(context)
    return f"Video already exists locally. {problem}" if problem else "Video already exists locally"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    video = await _get_video(context)
    async with _as_failures():
        if await _is_here(context, video):
            info = await _probe(context, await local_file(context, video.cloud_url, _FILM_NAME))
            await _describe(context, info, video.cloud_url, video.source_url)
        else:
            info = await _download(context, video)
    described = {"file_size_kb": info.file_size_kb, "duration_seconds": info.duration_seconds, "format": info.format}
    problem = await describe_file_problem(context)
    return {**described, "reason": problem} if problem else described


async def _download(context: RunContext, video: Video) -> MediaInfo:
    url = _url_of(context, video)
    if url is None:
        raise StageFailed("the file is missing, and there is no URL to download it from")
    part = PartFile(context.folder / _PART_NAME, context.settings.max_download_bytes, partial(_report, context))
    try:
        film = await _fetch(context, url, part)
        info = await _probe(context, film)
        stored = await context.storage.put(_key_for(context, video, info), film)
    except (TransientFailure, StorageUnavailable):
        raise  # the next attempt goes on with what is here
    except Exception:
        await _discard(context, part)
        raise
    await _discard(context, part)
    try:
        await _describe(context, info, stored.url, url)
    except VideoDeleted:
        await context.storage.delete(stored.url)
        raise
    return info


async def _fetch(context: RunContext, url: str, part: PartFile) -> Path:
    await part.look(url)
    if url.startswith("gs://"):
        await fetch_from_bucket(context.storage, url, part)
        return part.path
    try:
        await fetch_over_http(url, part, context.settings.allowed_hosts)
    except WebPage:
        if not can_fetch_from_pages():
            raise
        return await _fetch_from_page(context, url)
    return part.path


async def _fetch_from_page(context: RunContext, url: str) -> Path:
    folder, settings = context.folder / _PAGE_FOLDER, context.settings
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    report = partial(_report, context)
    return await fetch_from_page(url, folder, settings.allowed_hosts, settings.max_download_bytes, report)


async def _discard(context: RunContext, part: PartFile) -> None:
    await part.discard()
    await asyncio.to_thread(shutil.rmtree, context.folder / _PAGE_FOLDER, ignore_errors=True)


async def _probe(context: RunContext, path: Path) -> MediaInfo:
    try:
        info = await _probes.run(probe, path)
    except NotAVideo as error:
        raise StageFailed(f"what has arrived is no video that can be used: {error}") from None
    check_hours(info.duration_seconds or 0.0, context.settings.max_video_hours)
    return info


async def _describe(context: RunContext, info: MediaInfo, film_url: str, source_url: str | None) -> None:
    async def describe(conn: Connection) -> None:
        videos = VideoRepository(conn)
        await videos.update(
            context.run.video_id,
            cloud_url=film_url,
            source_url=source_url,
            duration_seconds=info.duration_seconds,
            file_size_kb=info.file_size_kb,
            video_codec=info.video_codec,
            audio_codec=info.audio_codec,
            resolution=info.resolution,
            frame_rate=info.frame_rate,
        )
        await videos.mark_complete(context.run.video_id)
        if info.ends_early:
            await VideoFileRepository(conn).store_early_end(context.run.video_id, film_url, info.declared_seconds)

    await context.save(describe)


async def _get_video(context: RunContext) -> Video:
    async with context.database.connect() as conn:
        video = await VideoRepository(conn).get(context.run.video_id)
    if video is None:
        raise VideoDeleted
    return video


async def _is_here(context: RunContext, video: Video) -> bool:
    try:
        await context.storage.stat(video.cloud_url)
    except FileMissing:
        return False
    return True


def _url_of(context: RunContext, video: Video) -> str | None:
    return context.run.request.video_url or video.source_url


def _key_for(context: RunContext, video: Video, info: MediaInfo) -> str:
    """Return the name that was announced, so that a worker that takes the run over writes to the same."""
    folder, name = video_folder(video.identifier), video.cloud_url.rpartition("/")[2]
    announced = _ANNOUNCED.fullmatch(name)
    is_own = announced is not None and context.storage.url_of(f"{folder}/{name}") == video.cloud_url
    stem = announced[1] if announced and is_own else secrets.token_hex(8)
    return f"{folder}/{stem}{info.extension}"


def _report(context: RunContext, arrived: int, total: int | None) -> None:
    percentage = 100 * arrived // total if total else 0
    context.report(bytes_downloaded=arrived, total_bytes=total or 0, percentage=percentage)


@asynccontextmanager
async def _as_failures() -> AsyncIterator[None]:
    try:
        yield
    except RunLost:
        raise
    except (TransientFailure, StorageUnavailable) as error:
        raise TransientFailure(_tell(error)) from None
    except (StageFailed, AddressRefused, StorageFull) as error:
        raise StageFailed(_tell(error)) from None


def _tell(error: Exception) -> str:
    text = str(error)
    return f"Video download failed: {text[:1].lower()}{text[1:]}"
