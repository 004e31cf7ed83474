"""One run over one video with a worker of its own, from the file to its end."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.cli.run_progress import RunProgress
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
from app.services.runs import find_newest_full_run, reported_stages
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
    """The status of an ended run with its error message, and the moments and clips of its video."""

    status: RunStatus
    message: str | None
    moments: Sequence[Moment]
    clips: Sequence[Clip]


async def execute_run(video: str, request: RunRequest, settings: Settings, progress: RunProgress) -> CommandRunResult:
    """Execute a run and wait for its end; cancel it when cancelled. `video` is a file, a URL or an identifier.

    Raises what `RunStarter` and uploads raise.
    """
    settings = settings.model_copy(update={"worker_metrics": None})  # its address may be a worker's
    async with open_resources(make_resources(settings)) as resources:
        await prepare_redis_within(resources.redis, _REDIS_SECONDS)
        identifier = await _start(video, request, resources, progress)
        try:
            async with run_worker(resources):
                run = await _follow(identifier, resources, progress)
        except BaseException:
            with suppress(NoMatchingRun):
                await asyncio.wait_for(
                    cancel_runs_of_video(resources.database, resources.redis, identifier), _CANCEL_SECONDS
                )
            raise
        return await _read_end(identifier, run, resources)


async def _start(video: str, request: RunRequest, resources: Resources, progress: RunProgress) -> str:
    """Have the run accepted and return the identifier of its video."""
    run_requests = RunStarter(
        resources.database, resources.storage, resources.redis, resources.settings, resources.notifier.notify
    )
    if _URL.match(video):
        _, resolved = await run_requests.start_full_run_from_url(video, request, force=False)
        return resolved.video
    size = _size_of_file(video)
    identifier = to_nfc(video) if size is None else await _receive(Path(video), size, resources, progress)
    try:
        if not is_valid_identifier(identifier):
            raise VideoNotFound
        await run_requests.start_full_run(identifier, request)
    except VideoNotFound:
        raise NotFound(f"There is no file {video}, and no video of that id") from None
    except AlreadyRunning:
        await _join(identifier, resources, progress)
    return identifier


async def _join(video: str, resources: Resources, progress: RunProgress) -> None:
    """Go on with a run that was accepted before: nobody may be there to do it. Raises `AlreadyRunning`."""
    run = await find_newest_full_run(resources.database, resources.redis, video)
    if run is None or run.status != RunStatus.RUNNING:  # what runs is a part of one, which ends soon
        raise AlreadyRunning(f"Something else runs over '{video}', try again when it has ended")
    progress.say(f"A run over '{video}' was started before: going on with that one")


def _size_of_file(path: str) -> int | None:
    return Path(path).stat().st_size if Path(path).is_file() else None


async def _receive(path: Path, size: int, resources: Resources, progress: RunProgress) -> str:
    """Return the identifier of the video that a file is, or becomes."""
    details, done = UploadDetails(filename=path.name), 0
    if (known := await _find_same(path, size, details.identifier_from_filename, resources)) is not None:
        progress.say("Using the video that the library has")
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
                progress.receive(done, size)
        return await upload.store_as_video(details)


async def _find_same(path: Path, size: int, base: str, resources: Resources) -> str | None:
    """Return the video that has this very file under the name that is derived from its file, with a suffix or not."""
    if not base:
        return None
    async with resources.database.connect() as conn:
        names = await VideoRepository(conn).list_taken_identifiers(base)
    derived = re.compile(rf"{re.escape(base)}(-\d+|-[0-9a-f]{{8}})?")
    for name in sorted(filter(derived.fullmatch, names), key=lambda name: (len(name), name)):
        if await _is_there(path, size, name, resources):
            return name
    return None


async def _is_there(path: Path, size: int, identifier: str, resources: Resources) -> bool:
    """Whether the library has this very file under its name."""
    async with resources.database.connect() as conn:
        video = await VideoRepository(conn).get_by_identifier(identifier)
    if video is None:
        return False
    try:
        stored = await resources.storage.stat(video.cloud_url)
        return stored.size == size and await _is_same(path, video.cloud_url, resources.storage)
    except FileMissing:
        return False


async def _is_same(path: Path, url: str, storage: Storage) -> bool:
    with path.open("rb") as file, await asyncio.to_thread(storage.open_blocking, url) as other:
        while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            if await asyncio.to_thread(other.read, len(data)) != data:
                return False
    return True


async def _follow(video: str, resources: Resources, progress: RunProgress) -> RunSummary:
    """Show how far the run is until it has ended."""
    while True:
        run = await find_newest_full_run(resources.database, resources.redis, video)
        if run is None:
            raise VideoNotFound
        progress.show(reported_stages(run))
        if run.status != RunStatus.RUNNING:
            return run
        await asyncio.sleep(_POLL_SECONDS)


async def _read_end(video: str, run: RunSummary, resources: Resources) -> CommandRunResult:
    async with resources.database.connect() as conn:
        row = await VideoRepository(conn).get_by_identifier(video)
        if row is None:
            raise VideoNotFound
        moments = await MomentRepository(conn).list_by_video(row.id)
        clips = await ClipRepository(conn).list_by_video(row.id)
    message = run.error_message or (None if moments else _why_none(run))
    return CommandRunResult(RunStatus(run.status), message, moments, clips)


def _why_none(run: RunSummary) -> str | None:
    record = reported_stages(run).get(Stage.GENERATION)
    return record.result.get("reason") if record else None
