"""One run over one video with a worker of its own, from the file to its end."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.cli.run_output import RunProgress
from app.core.config import Settings
from app.core.errors import (
    AlreadyRunning,
    FileMissing,
    NoMatchingRun,
    NotFound,
    VideoNotFound,
)
from app.core.text import is_valid_identifier, to_nfc
from app.models import Clip, Moment
from app.models.runs import RunRequest, RunStatus
from app.models.stages import Stage
from app.repositories import ClipRepository, MomentRepository, VideoRepository
from app.repositories.runs import RunSummary
from app.resources import Resources, make_resources, open_resources, prepare_redis_within
from app.services.queue import cancel_runs_of_video
from app.services.run_requests import RunStarter
from app.services.runs import find_newest_full_run, make_reported_stage_records
from app.services.uploads import UploadDetails, open_video_upload
from app.storage import Storage
from app.worker.worker import run_worker

_URL = re.compile(r"(https?|gs)://", re.IGNORECASE)
_CHUNK_BYTES = 1024 * 1024
_POLL_SECONDS = 0.25
_REDIS_SECONDS = 10.0
_CANCEL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class CommandRunResult:
    """The status and message of an ended run, and the moments and clips of its video."""

    status: RunStatus
    message: str | None
    moments: Sequence[Moment]
    clips: Sequence[Clip]


async def execute_run(video: str, request: RunRequest, settings: Settings, progress: RunProgress) -> CommandRunResult:
    """Execute a run of a file, a URL or a video's identifier to its end, and cancel it when cancelled."""
    settings = settings.model_copy(update={"worker_metrics": None})  # its address may be a worker's
    async with open_resources(make_resources(settings)) as resources:
        await prepare_redis_within(resources.redis, _REDIS_SECONDS)
        identifier = await _start_or_join_run(video, request, resources, progress)
        try:
            async with run_worker(resources):
                run = await _show_progress_until_end(identifier, resources, progress)
        except BaseException:
            with suppress(NoMatchingRun):
                await asyncio.wait_for(
                    cancel_runs_of_video(resources.database, resources.redis, identifier), _CANCEL_SECONDS
                )
            raise
        return await _read_run_result(identifier, run, resources)


async def _start_or_join_run(video: str, request: RunRequest, resources: Resources, progress: RunProgress) -> str:
    """Enqueue a full run, after an upload of a local file, or join the running one; return the video's identifier."""
    run_starter = RunStarter(
        resources.database, resources.storage, resources.redis, resources.settings, resources.notifier.notify
    )
    if _URL.match(video):
        _, resolved = await run_starter.start_full_run_from_url(video, request, force=False)
        return resolved.video
    is_file = await asyncio.to_thread(Path(video).is_file)
    identifier = await _upload_or_find_video(Path(video), resources, progress) if is_file else to_nfc(video)
    try:
        if not is_valid_identifier(identifier):
            raise VideoNotFound
        await run_starter.start_full_run(identifier, request)
    except VideoNotFound:
        raise NotFound(f"There is no file {video}, and no video of that id") from None
    except AlreadyRunning:
        await _require_running_full_run(identifier, resources, progress)
    return identifier


async def _require_running_full_run(video: str, resources: Resources, progress: RunProgress) -> None:
    """Check that a full run of the video is running, which this worker can continue. Raises `AlreadyRunning`."""
    run = await find_newest_full_run(resources.database, resources.redis, video)
    if run is None or run.status != RunStatus.RUNNING:  # what runs is a part of one, which ends soon
        raise AlreadyRunning(f"Something else runs over '{video}', try again when it has ended")
    progress.print_line(f"A run over '{video}' was started before: going on with that one")


async def _upload_or_find_video(path: Path, resources: Resources, progress: RunProgress) -> str:
    """Return the identifier of the video that has this file, after an upload unless the library has it."""
    details, size, done = UploadDetails(filename=path.name), (await asyncio.to_thread(path.stat)).st_size, 0
    if (known := await _find_video_of_same_file(path, size, details.identifier_from_filename, resources)) is not None:
        progress.print_line("Using the video that the library has")
        return known
    settings = resources.settings
    async with open_video_upload(
        resources.database, resources.storage, settings.max_upload_bytes, settings.max_video_hours
    ) as upload:
        await upload.check_upload_details(details, size)
        with path.open("rb") as file:
            while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await upload.write_chunk(data)
                done += len(data)
                progress.show_upload(done, size)
        return await upload.store_as_video(details)


async def _find_video_of_same_file(path: Path, size: int, derived_identifier: str, resources: Resources) -> str | None:
    """Return the identifier, the derived one or that with a suffix, of the video with the same content; else None."""
    if not derived_identifier:
        return None
    with_suffix = re.compile(rf"{re.escape(derived_identifier)}(-\d+|-[0-9a-f]{{8}})?")
    async with resources.database.connect() as conn:
        repository = VideoRepository(conn)
        names = filter(with_suffix.fullmatch, await repository.list_taken_identifiers(derived_identifier))
        videos = [
            await repository.get_by_identifier(name) for name in sorted(names, key=lambda name: (len(name), name))
        ]
    for video in filter(None, videos):
        if await _has_same_content(path, size, video.cloud_url, resources.storage):
            return video.identifier
    return None


async def _has_same_content(path: Path, size: int, stored_url: str, storage: Storage) -> bool:
    try:
        if (await storage.stat(stored_url)).size != size:
            return False
        with path.open("rb") as file, await asyncio.to_thread(storage.open_blocking, stored_url) as stored_file:
            while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                if await asyncio.to_thread(stored_file.read, len(data)) != data:
                    return False
    except FileMissing:
        return False
    return True


async def _show_progress_until_end(video: str, resources: Resources, progress: RunProgress) -> RunSummary:
    while True:
        run = await find_newest_full_run(resources.database, resources.redis, video)
        if run is None:
            raise VideoNotFound
        progress.show_stages(make_reported_stage_records(run))
        if run.status != RunStatus.RUNNING:
            return run
        await asyncio.sleep(_POLL_SECONDS)


async def _read_run_result(video: str, run: RunSummary, resources: Resources) -> CommandRunResult:
    async with resources.database.connect() as conn:
        row = await VideoRepository(conn).get_by_identifier(video)
        if row is None:
            raise VideoNotFound
        moments = await MomentRepository(conn).list_by_video(row.id)
        clips = await ClipRepository(conn).list_by_video(row.id)
    message = run.error_message or (None if moments else _get_generation_reason(run))
    return CommandRunResult(RunStatus(run.status), message, moments, clips)


def _get_generation_reason(run: RunSummary) -> str | None:
    record = make_reported_stage_records(run).get(Stage.GENERATION)
    return record.result.get("reason") if record else None
