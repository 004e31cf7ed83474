"""Stored media files: which file an address means, which clips can be used, and which videos have audio."""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis

from app.core.errors import (
    ClipNotFound,
    FileMissing,
    ModelNotConfigured,
    MomentNotFound,
    StorageUnavailable,
    VideoMomentsError,
    VideoNotFound,
    require_found,
)
from app.core.text import is_valid_identifier, list_unicode_forms, to_nfc
from app.database import Connection, Database
from app.models.rows import CLIP_PADDING_SECONDS
from app.models.runs import RunRequest
from app.repositories.media import MediaUrlRepository
from app.repositories.moments import ClipAndSpeechTimes, MomentRepository
from app.services.models import get_model_or_default
from app.storage import OpenFile, Storage, find_audio_file, storable_name

# A healthy storage answers in milliseconds. With the usual timeout of a minute, a few requests to an unavailable one
# would occupy all connections of the pool.
_LOCKED_STORAGE_SECONDS = 5.0
_CLIP_NAME = re.compile(r"(.+)_clip\.(mp4|m4a)", re.DOTALL)
# Longer than any name of a video identifier, a moment identifier and their separators.
_LONGEST_CLIP_NAME = 300
_log = logging.getLogger(__name__)
_TOLERANCE_SECONDS = 0.5
_CLIP_IS_AUDIO = "Video clip not available. The clip has audio and no video stream."
# How long a listing is valid, and how long a request waits for one.
_FRESH_SECONDS = 1.0
_LISTING_TIMEOUT = 1.5
_EXTENSION = ".wav"


@asynccontextmanager
async def limit_storage_time() -> AsyncIterator[None]:
    """Raise `StorageUnavailable` if the block, which holds a connection and a lock, takes more than five seconds."""
    try:
        async with asyncio.timeout(_LOCKED_STORAGE_SECONDS):
            yield
    except TimeoutError:
        raise StorageUnavailable("The storage takes too long to answer") from None


async def has_audio_file(storage: Storage, video: str) -> bool:
    try:
        await find_audio_file(storage, video)
    except FileMissing:
        return False
    return True


@asynccontextmanager
async def open_first_existing_file(storage: Storage, urls: Sequence[str]) -> AsyncIterator[OpenFile]:
    """Yield the first existing file of `urls`, open. Raises `FileMissing` if none exists, and `StorageUnavailable`."""
    async with AsyncExitStack() as stack:
        for url in urls[:-1]:
            with suppress(FileMissing):
                file = await stack.enter_async_context(storage.open_async(url))
                break
        else:
            file = await stack.enter_async_context(storage.open_async(urls[-1]))
        yield file


async def get_clip_url(conn: Connection, video: str, moment: str) -> str:
    location = require_found(await MediaUrlRepository(conn).get_clip_location(video, moment), VideoNotFound)
    if not location.has_moment:
        raise MomentNotFound
    if location.url is None:
        raise ClipNotFound
    return location.url


async def find_clip_url_by_legacy_name(conn: Connection, filename: str) -> str:
    """Return the URL of the clip file that the previous backend called `{video}_{moment}_clip.mp4` or `.m4a`."""
    match = _CLIP_NAME.fullmatch(filename)
    if match is None or len(filename) > _LONGEST_CLIP_NAME or not is_valid_identifier(filename):
        raise ClipNotFound
    clip = match[1]
    videos = [clip[:position] for position, character in enumerate(clip) if character == "_"]
    # gs:// URLs are unescaped, file:// URLs are escaped, and some file systems decompose letters.
    endings = {ending for form in list_unicode_forms(filename) for ending in (f"/{form}", f"/{quote(form)}")}
    return require_found(await MediaUrlRepository(conn).find_clip_url(videos, clip, list(endings)), ClipNotFound)


@dataclass(frozen=True, slots=True)
class ClipAvailability:
    """Whether a refinement can use a moment's clip; durations in seconds, `clip_path` relative to the server's root."""

    available: bool
    clip_path: str | None
    clip_duration: float | None
    transcript_duration: float | None
    duration_match: bool
    warning: str | None
    model_supports_video: bool


async def get_clip_availability(
    database: Database, redis: Redis, storage: Storage, video: str, moment: str
) -> ClipAvailability:
    async with database.connect() as conn:
        clip_and_speech = require_found(
            await MomentRepository(conn).get_clip_and_speech_times(video, moment, CLIP_PADDING_SECONDS), VideoNotFound
        )
    if not clip_and_speech.has_moment:
        raise MomentNotFound
    clip_problem = (
        _CLIP_IS_AUDIO
        if clip_and_speech.clip_is_audio
        else await _find_clip_file_problem(storage, clip_and_speech.clip_url)
    )
    clip_seconds = None if clip_problem else clip_and_speech.clip_seconds
    speech_seconds = _calculate_speech_seconds_or_none(clip_and_speech)
    return ClipAvailability(
        not clip_problem,
        None if clip_problem else f"/moment_clips/{quote(f'{video}_{moment}_clip.mp4', safe='')}",
        clip_seconds,
        speech_seconds,
        clip_seconds is not None
        and speech_seconds is not None
        and abs(clip_seconds - speech_seconds) <= _TOLERANCE_SECONDS,
        clip_problem or _find_clip_duration_mismatch(clip_and_speech, clip_seconds, speech_seconds),
        await _default_refinement_model_supports_video(redis),
    )


def _calculate_speech_seconds_or_none(times: ClipAndSpeechTimes) -> float | None:
    if times.speech_start is None or times.speech_end is None or times.speech_end <= times.speech_start:
        return None
    return times.speech_end - times.speech_start


def _find_clip_duration_mismatch(
    times: ClipAndSpeechTimes, clip_seconds: float | None, speech_seconds: float | None
) -> str | None:
    if not times.has_transcript:
        return "Could not validate alignment: there is no transcript"
    if clip_seconds is None or speech_seconds is None:
        return "No words found in transcript range"
    difference = abs(clip_seconds - speech_seconds)
    if difference <= _TOLERANCE_SECONDS:
        return None
    return f"Duration mismatch: clip={clip_seconds:.2f}s, transcript={speech_seconds:.2f}s (diff={difference:.2f}s)"


async def _find_clip_file_problem(storage: Storage, clip_url: str | None) -> str | None:
    """Return why a clip's file cannot be used: none was cut, it is missing, or the storage fails; None if it exists."""
    if clip_url is None:
        return "Video clip not available. Extract clips first."
    try:
        await storage.stat(clip_url)
    except FileMissing:
        return "Video clip not available. Its file is missing."
    except StorageUnavailable as error:
        return f"Video clip not available. {error}"
    return None


async def _default_refinement_model_supports_video(redis: Redis) -> bool:
    try:
        return (await get_model_or_default(redis, RunRequest().refinement_model)).supports_video
    except ModelNotConfigured:
        return False


@dataclass(frozen=True, slots=True)
class VideosWithAudio:
    """The set of videos whose audio is extracted."""

    folders: frozenset[str] = frozenset()  # in the server's own storage, by `storable_name`
    identifiers: frozenset[str] = frozenset()  # in imported libraries

    def __bool__(self) -> bool:
        return bool(self.folders or self.identifiers)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self.identifiers or (bool(self.folders) and storable_name(identifier) in self.folders)


class ExtractedAudioIndex:
    """Knows which videos have extracted audio; lists the storage at most once a second."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._listed = VideosWithAudio()
        self._fresh_until = float("-inf")
        self._listing: asyncio.Task[None] | None = None
        self._listing_deadline = 0.0
        self._requested = self._completed = 0

    async def get_videos_with_audio(self) -> VideosWithAudio:
        """Return the current set, the same object until it changes; the last one if the storage is slow."""
        if time.monotonic() >= self._fresh_until:
            await self._await_listing_of_audio()
        if self._requested != self._completed:  # the listing started before the last invalidation
            await self._await_listing_of_audio()
        return self._listed

    def mark_outdated(self, video_identifier: str) -> None:
        """List the storage again at the next request, unless the video's audio is known."""
        if video_identifier not in self._listed:
            self._fresh_until = float("-inf")
            self._requested += 1

    async def _await_listing_of_audio(self) -> None:
        is_new = self._listing is None or self._listing.done()
        if self._listing is None or is_new:
            # Shared by requests, so the context of none.
            self._listing = asyncio.create_task(self._update_videos_with_audio(), context=Context())
            self._listing_deadline = time.monotonic() + _LISTING_TIMEOUT
        _, late = await asyncio.wait({self._listing}, timeout=max(self._listing_deadline - time.monotonic(), 0))
        if late and is_new:
            _log.warning("The storage did not list the extracted audio in time")

    async def _update_videos_with_audio(self) -> None:
        requested = self._requested
        try:
            folders = await self._storage.list_names("audio")
            identifiers = await asyncio.to_thread(_list_identifiers_of_library_audio, self._storage)
            listed = VideosWithAudio(frozenset(folders), frozenset(identifiers))
            if listed != self._listed:
                self._listed = listed
        except (VideoMomentsError, OSError) as error:
            _log.warning("The storage cannot list the extracted audio: %s", error)
        self._completed = requested
        self._fresh_until = time.monotonic() + _FRESH_SECONDS if requested == self._requested else float("-inf")


def _list_identifiers_of_library_audio(storage: Storage) -> set[str]:
    return {
        identifier
        for library in storage.libraries.list_folders()
        for identifier in _list_wav_file_stems_in_folder(library / "audios")
    }


def _list_wav_file_stems_in_folder(folder: Path) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [
                to_nfc(entry.name.removesuffix(_EXTENSION))
                for entry in entries
                if entry.name.endswith(_EXTENSION) and entry.is_file()
            ]
    except OSError:  # most libraries have no audio folder
        return []
