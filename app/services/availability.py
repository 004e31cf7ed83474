"""What a refinement of a moment can use beside its words: the clip, and a model that can be shown one."""

import asyncio
import logging
from dataclasses import dataclass
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.ai.registry import DEFAULT_MODELS, ModelRegistry
from app.core.errors import FileMissing, MomentNotFound, StorageUnavailable, VideoNotFound
from app.database import Database
from app.models.clip import CLIP_PADDING_SECONDS
from app.repositories.moments import MomentRepository, RefinementInputs
from app.services.identifiers import findable
from app.storage import Storage

_log = logging.getLogger(__name__)

_REFINEMENT_MODEL = "qwen3_vl_fp8"
_TOLERANCE_SECONDS = 0.5
_PATIENCE_SECONDS = 1.0
_AUDIO_ONLY = "Video clip not available. The clip is audio without a picture."


@dataclass(frozen=True, slots=True)
class Availability:
    """Durations are seconds; the path of the clip is an address of this server, relative to its root."""

    available: bool
    clip_path: str | None
    clip_duration: float | None
    transcript_duration: float | None
    duration_match: bool
    warning: str | None
    model_supports_video: bool


async def find_clip(database: Database, redis: Redis, storage: Storage, video: str, moment: str) -> Availability:
    """Return what there is for a moment. Raises `VideoNotFound` and `MomentNotFound`."""
    async with database.connect() as conn:
        material = await MomentRepository(conn).get_refinement_inputs(
            findable(video), findable(moment), CLIP_PADDING_SECONDS
        )
    if material is None:
        raise VideoNotFound
    if not material.has_moment:
        raise MomentNotFound
    missing = _AUDIO_ONLY if material.clip_is_audio else await _why_missing(storage, material.clip_url)
    clip = None if missing else material.clip_seconds
    said = _said_seconds(material)
    return Availability(
        not missing,
        None if missing else f"/moment_clips/{quote(f'{video}_{moment}_clip.mp4', safe='')}",
        clip,
        said,
        clip is not None and said is not None and abs(clip - said) <= _TOLERANCE_SECONDS,
        missing or _warning(material, clip, said),
        await _supports_video(redis),
    )


def _said_seconds(material: RefinementInputs) -> float | None:
    """Return how long the words of the window take, or None where nothing is said in it."""
    if material.said_from is None or material.said_until is None or material.said_until <= material.said_from:
        return None
    return material.said_until - material.said_from


def _warning(material: RefinementInputs, clip: float | None, said: float | None) -> str | None:
    if not material.has_transcript:
        return "Could not validate alignment: there is no transcript"
    if clip is None or said is None:
        return "No words found in transcript range"
    if abs(clip - said) > _TOLERANCE_SECONDS:
        return f"Duration mismatch: clip={clip:.2f}s, transcript={said:.2f}s (diff={abs(clip - said):.2f}s)"
    return None


async def _why_missing(storage: Storage, url: str | None) -> str | None:
    """Return why there is no clip that can be read, or None where there is one."""
    if url is None:
        return "Video clip not available. Extract clips first."
    try:
        await storage.stat(url)
    except FileMissing:
        return "Video clip not available. Its file is missing."
    except StorageUnavailable as error:
        return f"Video clip not available. {error}"
    return None


async def _supports_video(redis: Redis) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            config = await ModelRegistry(redis).get(_REFINEMENT_MODEL)
    except (RedisError, OSError) as error:
        _log.debug("Redis does not tell of %s: %s", _REFINEMENT_MODEL, error)
        config = DEFAULT_MODELS[_REFINEMENT_MODEL]
    return config is not None and config.supports_video
