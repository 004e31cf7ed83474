"""The stage that transcribes the audio of a video."""

import asyncio
import math
import time
import wave
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import orjson

from app.ai.protocols import AudioFile, Segment, TranscriptionResult, Word
from app.core.errors import FileMissing, ModelAnswerInvalid, StageFailed
from app.core.text import format_clock_time, strip_unstorable
from app.media.audio import wav_duration
from app.pipeline.context import RunContext
from app.pipeline.files import get_local_audio
from app.pipeline.model_answers import serialize_model_usage, store_raw_answer_if_invalid
from app.repositories import TranscriptRepository
from app.repositories.contents import VideoContentsRepository
from app.repositories.transcripts import NewTranscript
from app.storage import find_audio_file

# Services round times, and hear a word a little past the end; a later time belongs to another audio.
_TOLERANCE_SECONDS = 2.0
_MAX_SPANS = 5
_LANGUAGE_LENGTH = 10  # of `transcripts.language`
_SERVICE_LENGTH = 50  # of `transcripts.transcription_service`
_UNKNOWN_LANGUAGE = "und"  # ISO 639


async def skip_reason(context: RunContext) -> str | None:
    """Return that the video has a transcript already, or None."""
    async with context.database.connect() as conn:
        contents = await VideoContentsRepository(conn).get_contents(context.run.video_id)
    return None if contents.transcript_id is None else "Transcript already exists"


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Transcribe the audio of the video with a model, store the transcript, and return its counts."""
    audio = await _open_extracted_audio(context)
    transcriber = await context.models.get_transcriber(context.run.request.transcription_model)
    started = time.monotonic()
    async with store_raw_answer_if_invalid(context):
        transcribed = await transcriber.transcribe(audio, context.report_share)
        _check_transcribed_times(transcribed, audio.duration_seconds)
    row = _make_transcript_row(context.run.video_id, transcribed, audio.duration_seconds, time.monotonic() - started)
    is_first = await context.save_result(lambda conn: TranscriptRepository(conn).create_if_missing(**row))
    context.report_progress(percentage=100)
    return {
        "service": row["transcription_service"],
        "language": row["language"],
        "words": row["number_of_words"],
        "segments": row["number_of_segments"],
        "usage": serialize_model_usage(transcribed.usage),
        **_make_reason_of_transcript_result(transcribed, is_first),
    }


def _make_reason_of_transcript_result(transcribed: TranscriptionResult, is_first: bool) -> dict[str, str]:
    if not is_first:
        return {"reason": "Another transcript was there first and is kept"}
    if not transcribed.dropped:
        return {}
    dropped = _make_dropped_speech_sentence(transcribed.dropped)
    return {"dropped_speech": dropped, "reason": dropped}


def _make_dropped_speech_sentence(spans: Sequence[tuple[float, float]]) -> str:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < _TOLERANCE_SECONDS:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    listed = ", ".join(f"{format_clock_time(start)}-{format_clock_time(end)}" for start, end in merged[:_MAX_SPANS])
    more = f" and {len(merged) - _MAX_SPANS} more" if len(merged) > _MAX_SPANS else ""
    return f"Speech that could not be understood is not in the transcript: {listed}{more}"


async def _open_extracted_audio(context: RunContext) -> AudioFile:
    try:
        path = await get_local_audio(context)
        duration = await asyncio.to_thread(wav_duration, path)
    except FileMissing:
        raise StageFailed("Audio file not found. Please process audio first.") from None
    except (wave.Error, EOFError):
        raise StageFailed("The audio file is damaged. Delete it and process audio again.") from None
    return AudioFile(path, duration, partial(_find_audio_url, context))


async def _find_audio_url(context: RunContext) -> str | None:
    """Return a URL from which a service can fetch the stored audio, None without one.

    Raises `StageFailed` where the URL is of this server, and the server has API keys.
    """
    try:
        link = await context.storage.get_signed_url(await find_audio_file(context.storage, context.run.video))
    except FileMissing:
        return None
    if link is not None:
        return link.url
    if context.settings.public_url is None:
        return None
    if context.settings.api_keys:
        raise StageFailed(
            "The service cannot fetch the audio from PUBLIC_URL, which is closed to it where API_KEYS is set: "
            "keep media in a bucket with STORAGE_URL"
        )
    return f"{context.settings.public_url.rstrip('/')}/static/audios/{quote(context.run.video, safe='')}.wav"


def _check_transcribed_times(transcribed: TranscriptionResult, duration: float) -> None:
    for part in (transcribed.words, transcribed.segments):
        if problem := _describe_invalid_time(part, duration):
            raw = orjson.dumps(transcribed, default=str).decode()
            raise ModelAnswerInvalid(f"The transcription cannot be used: {problem}", raw)


def _describe_invalid_time(parts: Iterable[Word | Segment], duration: float) -> str:
    """Describe the first time that is no number, runs backwards or exceeds the audio; "" without one."""
    previous = 0.0
    for part in parts:
        if not (math.isfinite(part.start) and math.isfinite(part.end)):
            return "a time is no number"
        if part.start < previous:
            return f"times run backwards at {previous:.2f} seconds"
        if part.end < part.start:
            return f"what begins at {part.start:.2f} seconds ends before that"
        if part.end > duration + _TOLERANCE_SECONDS:
            return f"a time is {part.end:.2f} seconds, and the audio has only {duration:.2f}"
        previous = part.start
    return ""


def _clamp_times_to_audio(part: Word | Segment, duration: float) -> dict[str, float]:
    return {"start": round(min(part.start, duration), 3), "end": round(min(part.end, duration), 3)}


def _make_transcript_row(
    video_id: int, transcribed: TranscriptionResult, duration: float, seconds: float
) -> NewTranscript:
    words: list[dict[str, Any]] = [
        {"word": text, **_clamp_times_to_audio(word, duration)}
        for word in transcribed.words
        if (text := strip_unstorable(word.word).strip())
    ]
    segments: list[dict[str, Any]] = [
        {"text": text, **_clamp_times_to_audio(segment, duration), "word_count": len(text.split())}
        for segment in transcribed.segments
        if (text := strip_unstorable(segment.text).strip())
    ]
    return NewTranscript(
        video_id=video_id,
        full_text=strip_unstorable(transcribed.text).strip(),
        word_timestamps=words,
        segment_timestamps=segments,
        language=strip_unstorable(transcribed.language)[:_LANGUAGE_LENGTH] or _UNKNOWN_LANGUAGE,
        number_of_words=len(words),
        number_of_segments=len(segments),
        transcription_service=strip_unstorable(transcribed.service)[:_SERVICE_LENGTH],
        processing_time_seconds=round(seconds, 3),
    )
