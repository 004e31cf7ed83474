"""The stage that downloads a video from its URL into the store."""

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
    RunLost,
    StageFailed,
    StorageFull,
    StorageUnavailable,
    TransientFailure,
    VideoDeleted,
)
from app.core.thread_pool import ThreadPool
from app.database import Connection
from app.media.container import check_max_hours
from app.media.probe import MediaInfo, NotMedia, probe_media
from app.models import Video
from app.pipeline.context import RunContext
from app.pipeline.downloads import PartialDownload, WebPageFound, download_from_bucket, download_over_http
from app.pipeline.files import describe_early_end_of_video, get_local_file, is_file_stored
from app.pipeline.video_pages import download_from_page, is_yt_dlp_installed
from app.repositories import VideoRepository
from app.repositories.media import PlayableCopyRepository
from app.storage import video_folder_key

_PARTIAL_NAME = "download.part"
_VIDEO_NAME = "video"
_PAGE_FOLDER = "page"
# A video row is inserted with such a file name; the extension follows from the content.
_PENDING_NAME = re.compile(r"([0-9a-f]{16})\.[a-z0-9]+")
_probes = ThreadPool("download-probes", 2)


async def skip_reason(context: RunContext) -> str | None:
    """Return that the file and metadata of the video are stored already, or None."""
    video = await context.get_video()
    if not await is_file_stored(context, video.cloud_url):
        return None
    # A worker may have died between storing the file and updating the row.
    has_metadata = video.file_size_kb is not None or _choose_source_url(context, video) is None
    if not has_metadata:
        return None
    problem = await describe_early_end_of_video(context)
    return f"Video already exists locally. {problem}" if problem else "Video already exists locally"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Download the video into the store, probe it, and return its size, duration and format."""
    video = await context.get_video()
    async with _translate_download_errors():
        if await is_file_stored(context, video.cloud_url):
            info = await _probe_downloaded_file(context, await get_local_file(context, video.cloud_url, _VIDEO_NAME))
            await _save_video_metadata(context, info, video.cloud_url, video.source_url)
        else:
            info = await _download_and_store_video(context, video)
    result = {"file_size_kb": info.file_size_kb, "duration_seconds": info.duration_seconds, "format": info.format}
    problem = await describe_early_end_of_video(context)
    return {**result, "reason": problem} if problem else result


async def _download_and_store_video(context: RunContext, video: Video) -> MediaInfo:
    url = _choose_source_url(context, video)
    if url is None:
        raise StageFailed("the file is missing, and there is no URL to download it from")
    part = PartialDownload(
        context.folder / _PARTIAL_NAME, context.settings.max_download_bytes, partial(_report_downloaded_bytes, context)
    )
    try:
        path = await _download_url(context, url, part)
        info = await _probe_downloaded_file(context, path)
        stored = await context.storage.put(_make_video_file_key(context, video, info), path)
    except (TransientFailure, StorageUnavailable):
        raise  # the next attempt continues with the bytes downloaded so far
    except Exception:
        await _delete_partial_files(context, part)
        raise
    await _delete_partial_files(context, part)
    try:
        await _save_video_metadata(context, info, stored.url, url)
    except VideoDeleted:
        await context.storage.delete(stored.url)
        raise
    return info


async def _download_url(context: RunContext, url: str, part: PartialDownload) -> Path:
    await part.load_earlier_bytes(url)
    if url.startswith("gs://"):
        await download_from_bucket(context.storage, url, part)
        return part.path
    try:
        await download_over_http(url, part, context.settings.allowed_hosts)
    except WebPageFound:
        if not is_yt_dlp_installed():
            raise
        folder, settings = context.folder / _PAGE_FOLDER, context.settings
        await asyncio.to_thread(folder.mkdir, exist_ok=True)
        report = partial(_report_downloaded_bytes, context)
        return await download_from_page(url, folder, settings.allowed_hosts, settings.max_download_bytes, report)
    return part.path


async def _delete_partial_files(context: RunContext, part: PartialDownload) -> None:
    await part.delete_files()
    await asyncio.to_thread(shutil.rmtree, context.folder / _PAGE_FOLDER, ignore_errors=True)


async def _probe_downloaded_file(context: RunContext, path: Path) -> MediaInfo:
    try:
        info = await _probes.run(probe_media, path)
    except NotMedia as error:
        raise StageFailed(f"what has arrived is no video that can be used: {error}") from None
    check_max_hours(info.duration_seconds or 0.0, context.settings.max_video_hours)
    return info


async def _save_video_metadata(context: RunContext, info: MediaInfo, file_url: str, source_url: str | None) -> None:
    async def update_row(conn: Connection) -> None:
        videos = VideoRepository(conn)
        await videos.update(
            context.run.video_id,
            cloud_url=file_url,
            source_url=source_url,
            duration_seconds=info.duration_seconds,
            file_size_kb=info.file_size_kb,
            video_codec=info.video_codec,
            audio_codec=info.audio_codec,
            resolution=info.resolution,
            frame_rate=info.frame_rate,
        )
        await videos.mark_download_complete(context.run.video_id)
        if info.ends_early:
            await PlayableCopyRepository(conn).store_early_end(context.run.video_id, file_url, info.declared_seconds)

    await context.save_result(update_row)


def _choose_source_url(context: RunContext, video: Video) -> str | None:
    return context.run.request.video_url or video.source_url


def _make_video_file_key(context: RunContext, video: Video, info: MediaInfo) -> str:
    """Return the key that the pending row names, with the extension of the content: the same in each attempt."""
    folder, name = video_folder_key(video.identifier), video.cloud_url.rpartition("/")[2]
    pending = _PENDING_NAME.fullmatch(name)
    is_own = pending is not None and context.storage.url_of(f"{folder}/{name}") == video.cloud_url
    stem = pending[1] if pending and is_own else secrets.token_hex(8)
    return f"{folder}/{stem}{info.extension}"


def _report_downloaded_bytes(context: RunContext, received: int, total: int | None) -> None:
    percentage = 100 * received // total if total else 0
    context.report_progress(bytes_downloaded=received, total_bytes=total or 0, percentage=percentage)


@asynccontextmanager
async def _translate_download_errors() -> AsyncIterator[None]:
    try:
        yield
    except RunLost:
        raise
    except (StageFailed, AddressRefused, StorageFull, StorageUnavailable) as error:
        text, is_transient = str(error), isinstance(error, (TransientFailure, StorageUnavailable))
        kind = TransientFailure if is_transient else StageFailed
        raise kind(f"Video download failed: {text[:1].lower()}{text[1:]}") from None
