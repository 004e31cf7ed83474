"""Transcribers that ask a service: OpenAI-compatible ones and Parakeet."""

import asyncio
from functools import partial

from app.ai.audio_chunks import MAX_UPLOAD_BYTES, AudioChunk, WavChunk, join_transcripts, plan_chunks
from app.ai.protocols import AudioFile, ProgressCallback, TranscriptionResult, Usage
from app.ai.service import ServiceClient, read_short_text, retry_transient_failures, short_model_name, versioned_path
from app.ai.transcript_parsing import AnswerFields, TimedTranscript, parse_transcription
from app.core.errors import StageFailed

_BASE_TIMEOUT_SECONDS = 300.0  # and as long as the sound takes: a service that is slower than speech is of no use
_MAX_NAME_LENGTH = 50  # characters that are stored of who transcribed
_OPENAI_FORM = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
_OPENAI_FIELDS = AnswerFields(text="text", words="words", segments="segments")


class OpenAITranscriber:
    """Sends the sound itself: whole where it is small enough, else in pieces, one after the other.

    Services that tell no times of words get them from their segments, see `read_timeline`.
    """

    def __init__(self, service: ServiceClient) -> None:
        self._service = service
        self._config = service.config

    @property
    def service(self) -> str:
        return short_model_name(self._config, _MAX_NAME_LENGTH)

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult:
        size = (await asyncio.to_thread(audio.path.stat)).st_size
        pieces = (
            plan_chunks(audio.duration_seconds)
            if size > MAX_UPLOAD_BYTES
            else [AudioChunk(0.0, audio.duration_seconds)]
        )
        heard: list[TranscriptionResult] = []
        for piece in pieces:
            call = partial(self._ask, audio, piece, is_whole=len(pieces) == 1)
            heard.append(await (retry_transient_failures(call) if len(pieces) > 1 else call()))
            progress(len(heard) / len(pieces))
        timeline = join_transcripts(pieces, [TimedTranscript(each.words, each.segments) for each in heard])
        return TranscriptionResult(
            text=heard[0].text if len(heard) == 1 else timeline.text,
            words=timeline.words,
            segments=timeline.segments,
            language=next((each.language for each in heard if each.language), ""),
            service=heard[0].service,
            usage=sum((each.usage for each in heard), Usage()),
        )

    async def _ask(self, audio: AudioFile, piece: AudioChunk, *, is_whole: bool) -> TranscriptionResult:
        """Return the transcript of one piece, in its own time."""
        model = {"model": self._config.model_id} if self._config.model_id else {}
        open_file = partial(audio.path.open, "rb") if is_whole else partial(WavChunk, audio.path, piece)
        with await asyncio.to_thread(open_file) as file:
            async with self._service.logged("transcribe") as call:
                answer = await self._service.post(
                    versioned_path(self._config, "/audio/transcriptions"),
                    _BASE_TIMEOUT_SECONDS + piece.end - piece.start,
                    data=_OPENAI_FORM | model,
                    files={"file": ("audio.wav", file, "audio/wav")},
                )
                text, timeline = parse_transcription(self._config.name, answer, _OPENAI_FIELDS, piece.end - piece.start)
        language = read_short_text(answer.get("language"), "", _MAX_NAME_LENGTH).lower()
        service = read_short_text(answer.get("model"), self.service, _MAX_NAME_LENGTH)
        return TranscriptionResult(text, timeline.words, timeline.segments, language, service, call.usage)


_PARAKEET_FIELDS = AnswerFields(text="transcription", words="word_timestamps", segments="segment_timestamps")


class ParakeetTranscriber:
    """Needs an address from which the service can read the sound."""

    def __init__(self, service: ServiceClient) -> None:
        self._service = service
        self._config = service.config

    @property
    def service(self) -> str:
        return short_model_name(self._config, _MAX_NAME_LENGTH)

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult:
        link = await audio.get_link()
        if link is None:
            raise StageFailed(
                f"{self._config.name} fetches the sound from an address, and there is none: "
                "set PUBLIC_URL, or keep media in a bucket with STORAGE_URL"
            )
        async with self._service.logged("transcribe") as call:
            answer = await self._service.post(
                "/transcribe", _BASE_TIMEOUT_SECONDS + audio.duration_seconds, json={"audio_url": link}
            )
            text, timeline = parse_transcription(self._config.name, answer, _PARAKEET_FIELDS, audio.duration_seconds)
        progress(1.0)
        return TranscriptionResult(text, timeline.words, timeline.segments, "", self.service, call.usage)
