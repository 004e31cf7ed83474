"""Requests for runs: their options, and the checks before they are enqueued."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, Field
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.errors import (
    AddressRefused,
    FileMissing,
    InvalidInput,
    MomentNotFound,
    RunInputMissing,
    StorageUnavailable,
    VideoNotFound,
    require_found,
)
from app.core.guarded_http import AddressGuard
from app.core.validation import InputInteger, InputLine, InputNumber, NormalizedText
from app.database import Database
from app.models.runs import RunRequest, StageRecord, next_stage
from app.models.stages import RunType, Stage
from app.models.videos import describe_moment_after_video_end
from app.repositories.jobs import JobRepository, RunPreconditions
from app.repositories.stages import ModelAnswerRepository
from app.services.media import has_audio_file
from app.services.models import get_moment_model, get_transcription_model
from app.services.queue import Notify, enqueue_run, make_already_running_error
from app.services.video_urls import VideoOfUrl, check_video_url, find_or_add_video_of_url, update_is_cached
from app.storage import Storage

_log = logging.getLogger(__name__)
_LONGEST_URL = 2000
_NO_AUDIO_STREAM = "The video has no audio"
_NO_AUDIO = "Audio file not found. Please process audio first."
_NO_TRANSCRIPT = "Transcript not found. Please generate transcript first."
_LONGEST_KEY = 64
_LARGEST_COUNT = 1000
_LONGEST_SECONDS = 86400
Length = Annotated[InputNumber, Field(gt=0, le=_LONGEST_SECONDS, allow_inf_nan=False, description="Seconds")]
Count = Annotated[InputInteger, Field(gt=0, le=_LARGEST_COUNT)]
Temperature = Annotated[InputNumber, Field(ge=0, le=2, allow_inf_nan=False)]
ModelKey = Annotated[
    InputLine,
    Field(min_length=1, max_length=_LONGEST_KEY, description="Key of a registered model", examples=["qwen3_vl_fp8"]),
]
Prompt = Annotated[
    NormalizedText | None,
    Field(description="Instead of the built-in one, which null and an empty text mean", examples=[None]),
]


class PipelineOptions(BaseModel):
    """Options of a full run. `model` and `temperature` are the defaults of both stages; unknown fields are ignored."""

    model: ModelKey | None = None
    generation_model: ModelKey | None = None
    refinement_model: ModelKey | None = None
    temperature: Temperature = 0.7
    generation_temperature: Temperature = Field(default_factory=lambda options: options.get("temperature", 0.7))
    refinement_temperature: Temperature = Field(default_factory=lambda options: options.get("temperature", 0.7))
    min_moment_length: Annotated[Length, Field(ge=10, le=300)] = 60
    max_moment_length: Annotated[Length, Field(ge=30, le=600)] = 120
    min_moments: Annotated[Count, Field(le=50)] = 3
    max_moments: Annotated[Count, Field(le=100)] = 10
    refinement_parallel_workers: Annotated[Count, Field(le=5)] = Field(2, description="Moments refined at once")
    include_video_refinement: bool = Field(True, description="Where the refinement model can be shown clips")
    generation_prompt: Prompt = None
    refinement_prompt: Prompt = None
    override_existing_moments: bool = Field(True, description="Replace the moments that a model has found before")
    override_existing_refinement: bool = Field(True, description="Replace what was refined before")
    callback_url: str | None = Field(
        None,
        max_length=2000,
        description="http:// or https:// address that gets a signed POST when the run has ended",
        examples=[None],
    )

    def to_run_request(self) -> RunRequest:
        default = RunRequest()
        return RunRequest(
            generation_model=self.generation_model or self.model or default.generation_model,
            refinement_model=self.refinement_model or self.model or default.refinement_model,
            generation_temperature=self.generation_temperature,
            refinement_temperature=self.refinement_temperature,
            min_moment_length=self.min_moment_length,
            max_moment_length=self.max_moment_length,
            min_moments=self.min_moments,
            max_moments=self.max_moments,
            generation_prompt=self.generation_prompt or "",
            refinement_prompt=self.refinement_prompt or "",
            refinement_parallel_workers=self.refinement_parallel_workers,
            include_video_refinement=self.include_video_refinement,
            override_existing_moments=self.override_existing_moments,
            override_existing_refinement=self.override_existing_refinement,
            override_existing_clips=self.override_existing_moments,
            callback_url=self.callback_url or None,
        )


class RunStarter:
    """Checks and enqueues runs; each `start_…` returns the identifier of the new run without waiting for the run.

    They raise `VideoNotFound` or `MomentNotFound`, `AlreadyRunning` and `RunInputMissing`; those with a model raise
    `ModelNotConfigured`, and `InvalidInput` for contradictory options.
    """

    def __init__(self, database: Database, storage: Storage, redis: Redis, settings: Settings, notify: Notify) -> None:
        self._database = database
        self._storage = storage
        self._redis = redis
        self._guard = AddressGuard(settings.allowed_hosts)
        self._sends_callbacks = settings.callback_secret is not None
        self._notify = notify

    async def start_audio_extraction(self, video: str) -> str:
        preconditions = await self._get_preconditions(video, RunType.AUDIO)
        self._raise_if_conflicting(preconditions, video)
        if await has_audio_file(self._storage, video):
            raise RunInputMissing("Audio file already exists for this video")
        await self._require_video_file(preconditions, "so its audio cannot be extracted")
        if preconditions.is_silent:
            raise RunInputMissing(_NO_AUDIO_STREAM)
        return await self.enqueue_unchecked(video, RunType.AUDIO, RunRequest())

    async def start_transcription(self, video: str) -> str:
        preconditions = await self._get_preconditions(video, RunType.TRANSCRIPT)
        await self._require_audio_file(video)
        self._raise_if_conflicting(preconditions, video)
        if preconditions.has_transcript:
            raise RunInputMissing("Transcript already exists for this video")
        request = RunRequest()
        await get_transcription_model(self._redis, request.transcription_model)
        return await self.enqueue_unchecked(video, RunType.TRANSCRIPT, request)

    async def start_moment_generation(self, video: str, request: RunRequest) -> str:
        _refuse_contradictory_moment_limits(request)
        preconditions = await self._get_preconditions(video, RunType.MOMENTS)
        await self._require_audio_file(video)
        _require_transcript(preconditions)
        await get_moment_model(self._redis, request.generation_model)
        return await self.enqueue_unchecked(video, RunType.MOMENTS, request)

    async def start_moment_refinement(self, video: str, moment: str, request: RunRequest) -> str:
        preconditions = await self._get_preconditions(video, RunType.REFINEMENT, moment)
        if not preconditions.has_moment:
            raise MomentNotFound
        _require_moment_inside_video(preconditions.moment_end, preconditions)
        await self._require_audio_file(video)
        _require_transcript(preconditions)
        model = await get_moment_model(self._redis, request.refinement_model)
        if request.include_video_refinement:
            if not model.supports_video:
                raise RunInputMissing(
                    f"Model '{request.refinement_model}' does not support video. "
                    "Use 'qwen3_vl_fp8' for video refinement."
                )
            await self._require_clip_file(preconditions)
        return await self.enqueue_unchecked(video, RunType.REFINEMENT, request, moment)

    async def start_clip_extraction(self, video: str, request: RunRequest) -> str:
        preconditions = await self._get_preconditions(video, RunType.CLIPS)
        if not preconditions.has_originals:
            raise RunInputMissing("No moments found for this video")
        self._raise_if_conflicting(preconditions, video)
        _require_moment_inside_video(preconditions.first_original_end, preconditions)
        await self._require_video_file(preconditions, "so no clips can be cut")
        return await self.enqueue_unchecked(video, RunType.CLIPS, request)

    async def start_full_run(self, video: str, request: RunRequest) -> str:
        await self.check_full_run(video, request)
        return await self.enqueue_unchecked(video, RunType.FULL, request)

    async def check_full_run(self, video: str, request: RunRequest) -> None:
        """Raise what `start_full_run` raises, except `VideoNotFound`, without starting the run."""
        await self._refuse_unusable_full_run_options(request)
        await self.check_inputs(video, RunType.FULL, request)

    async def start_full_run_from_url(self, url: str, request: RunRequest, *, force: bool) -> tuple[str, VideoOfUrl]:
        """Start a full run for the video of a URL, added if unknown; return the run's identifier and the video."""
        refusal = await self.check_full_run_from_url(url, request)
        async with self._database.connect() as conn, conn.transaction():
            resolved = await find_or_add_video_of_url(conn, self._storage, url, force)
            if refusal is not None and not resolved.is_cached:
                raise refusal
            identifier = await enqueue_run(conn, resolved.video, RunType.FULL, replace(request, video_url=url))
        await self._notify(identifier, next_stage(RunType.FULL, {}))
        return identifier, await update_is_cached(self._storage, resolved)

    async def check_full_run_from_url(self, url: str, request: RunRequest) -> AddressRefused | None:
        """Raise what is wrong with URL or options; return why the URL must not be downloaded, None if it may be."""
        check_video_url(url)
        await self._refuse_unusable_full_run_options(request)
        return await self._find_address_refusal(url)

    async def enqueue_unchecked(
        self,
        video: str,
        run_type: RunType,
        request: RunRequest,
        moment: str = "",
        stages: Mapping[Stage, StageRecord] | None = None,
        retried: str | None = None,
    ) -> str:
        """Enqueue a run that skips `stages` and reuses the model answers of the run `retried`; notify the workers."""
        async with self._database.connect() as conn:
            if retried is None:  # one statement needs no transaction
                identifier = await enqueue_run(conn, video, run_type, request, moment, stages)
            else:
                async with conn.transaction():
                    identifier = await enqueue_run(conn, video, run_type, request, moment, stages)
                    await ModelAnswerRepository(conn).copy_answers_to_retry(retried, identifier)
        await self._notify(identifier, next_stage(run_type, stages or {}))
        return identifier

    async def check_inputs(self, video: str, run_type: RunType, request: RunRequest) -> None:
        """Raise `RunInputMissing` if the video file or its audio stream is missing, and `AlreadyRunning`."""
        async with self._database.connect() as conn:
            preconditions = await JobRepository(conn).get_run_preconditions(video, run_type)
        if preconditions is None:
            return  # `enqueue_run` raises VideoNotFound
        self._raise_if_conflicting(preconditions, video)
        is_silent = preconditions.is_silent and not preconditions.has_transcript
        if run_type is RunType.FULL and is_silent and not await has_audio_file(self._storage, video):
            raise RunInputMissing(_NO_AUDIO_STREAM)
        match run_type:
            case RunType.FULL if not (request.video_url or preconditions.source_url):
                await self._require_video_file(preconditions, "and there is no URL to download it from")
            case RunType.AUDIO:
                await self._require_video_file(preconditions, "so its audio cannot be extracted")
            case RunType.CLIPS:
                await self._require_video_file(preconditions, "so no clips can be cut")

    async def _get_preconditions(self, video: str, run_type: RunType, moment: str = "") -> RunPreconditions:
        async with self._database.connect() as conn:
            return require_found(
                await JobRepository(conn).get_run_preconditions(video, run_type, moment), VideoNotFound
            )

    async def _find_address_refusal(self, url: str) -> AddressRefused | None:
        """Return why requests must not be sent to a URL, such as a private address; None if they may."""
        if url.startswith("gs://"):
            return None
        try:
            await self._guard.refuse_private_url(url)
        except AddressRefused as refusal:
            return refusal
        return None

    async def _refuse_unusable_full_run_options(self, request: RunRequest) -> None:
        _refuse_contradictory_moment_limits(request)
        await self._refuse_unusable_callback_url(request.callback_url)
        for key in {request.generation_model, request.refinement_model}:
            await get_moment_model(self._redis, key)

    async def _refuse_unusable_callback_url(self, url: str | None) -> None:
        if url is None:
            return
        if not self._sends_callbacks:
            raise InvalidInput("callback_url: this server sends no callbacks, because CALLBACK_SECRET is not set")
        if not _is_http_url(url):
            raise InvalidInput("callback_url: must be an http:// or https:// address")
        if refusal := await self._find_address_refusal(url):
            raise InvalidInput(f"callback_url: {str(refusal)[0].lower()}{str(refusal)[1:]}")

    @staticmethod
    def _raise_if_conflicting(preconditions: RunPreconditions, video: str) -> None:
        if preconditions.conflicting_type is not None:
            raise make_already_running_error(preconditions.conflicting_type, video)

    async def _require_audio_file(self, video: str) -> None:
        if not await has_audio_file(self._storage, video):
            raise RunInputMissing(_NO_AUDIO)

    async def _require_video_file(self, preconditions: RunPreconditions, consequence: str) -> None:
        if not await self._may_video_file_exist(preconditions):
            raise RunInputMissing(f"The video file is missing, {consequence}")

    async def _may_video_file_exist(self, preconditions: RunPreconditions) -> bool:
        """Return whether the video file exists, or may exist in a storage that only a worker can reach."""
        try:
            await self._storage.stat(preconditions.video_url)
        except FileMissing:
            return preconditions.has_media_info and not await asyncio.to_thread(
                self._storage.can_reach, preconditions.video_url
            )
        except StorageUnavailable as error:  # the run itself will find out
            _log.warning("Could not check whether the file %s exists: %s", preconditions.video_url, error)
        return True

    async def _require_clip_file(self, preconditions: RunPreconditions) -> None:
        try:
            if preconditions.clip_url is None:
                raise FileMissing
            await self._storage.stat(preconditions.clip_url)
        except FileMissing:
            if await self._may_video_file_exist(preconditions):
                reason = "Video clip not available. Extract clips first or disable video refinement."
            else:
                reason = "Video clip not available, and the video file is missing. Disable video refinement."
            raise RunInputMissing(reason) from None


def _require_moment_inside_video(moment_end: float | None, preconditions: RunPreconditions) -> None:
    problem = describe_moment_after_video_end(moment_end or 0.0, preconditions.video_seconds)
    if problem is not None:
        raise RunInputMissing(problem)


def _require_transcript(preconditions: RunPreconditions) -> None:
    if not preconditions.has_transcript:
        raise RunInputMissing(_NO_TRANSCRIPT)


def _refuse_contradictory_moment_limits(request: RunRequest) -> None:
    if request.min_moment_length > request.max_moment_length:
        raise InvalidInput("min_moment_length must not be greater than max_moment_length")
    if request.min_moments > request.max_moments:
        raise InvalidInput("min_moments must not be greater than max_moments")


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname), parts.port
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return parts.scheme in ("http", "https") and has_host and is_plain and len(url) <= _LONGEST_URL
