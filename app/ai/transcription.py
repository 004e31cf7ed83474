"""Transcribers that call a service: OpenAI-compatible ones, and Parakeet."""

import asyncio
from functools import partial

from app.ai.audio_chunks import MAX_UPLOAD_BYTES, AudioChunk, WavSliceFile, join_chunk_transcripts, plan_audio_chunks
from app.ai.protocols import AudioFile, ProgressCallback, TranscriptionResult, Usage
from app.ai.service import (
    ModelServiceClient,
    make_openai_api_path,
    parse_short_line,
    retry_transient_failures,
    short_model_name,
)
from app.ai.transcript_parsing import TimedTranscript, TranscriptionAnswerFields, parse_transcription_answer
from app.core.errors import StageFailed

_BASE_TIMEOUT_SECONDS = 300.0  # plus the duration of the audio: slower than real time is useless
_MAX_NAME_LENGTH = 50  # stored characters
_OPENAI_FORM = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
_OPENAI_FIELDS = TranscriptionAnswerFields(text="text", words="words", segments="segments")


class OpenAITranscriber:
    """Uploads the audio to `/v1/audio/transcriptions`: whole if small enough, else in chunks, one after the other.

    Words are interpolated if the service times segments only.
    """

    def __init__(self, service: ModelServiceClient) -> None:
        self._service = service
        self._config = service.config

    @property
    def service(self) -> str:
        return short_model_name(self._config, _MAX_NAME_LENGTH)

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult:
        size = (await asyncio.to_thread(audio.path.stat)).st_size
        chunks = (
            plan_audio_chunks(audio.duration_seconds)
            if size > MAX_UPLOAD_BYTES
            else [AudioChunk(0.0, audio.duration_seconds)]
        )
        results: list[TranscriptionResult] = []
        for chunk in chunks:
            call = partial(self._transcribe_chunk, audio, chunk, is_whole=len(chunks) == 1)
            results.append(await (retry_transient_failures(call) if len(chunks) > 1 else call()))
            progress(len(results) / len(chunks))
        timeline = join_chunk_transcripts(chunks, [TimedTranscript(each.words, each.segments) for each in results])
        return TranscriptionResult(
            text=results[0].text if len(results) == 1 else timeline.text,
            words=timeline.words,
            segments=timeline.segments,
            language=next((each.language for each in results if each.language), ""),
            service=results[0].service,
            usage=sum((each.usage for each in results), Usage()),
        )

    async def _transcribe_chunk(self, audio: AudioFile, chunk: AudioChunk, *, is_whole: bool) -> TranscriptionResult:
        model = {"model": self._config.model_id} if self._config.model_id else {}
        open_file = partial(audio.path.open, "rb") if is_whole else partial(WavSliceFile, audio.path, chunk)
        with await asyncio.to_thread(open_file) as file:
            async with self._service.log_call("transcribe") as call:
                answer = await self._service.post(
                    make_openai_api_path(self._config, "/audio/transcriptions"),
                    _BASE_TIMEOUT_SECONDS + chunk.end - chunk.start,
                    data=_OPENAI_FORM | model,
                    files={"file": ("audio.wav", file, "audio/wav")},
                )
                text, timeline = parse_transcription_answer(
                    self._config.name, answer, _OPENAI_FIELDS, chunk.end - chunk.start
                )
        language = parse_short_line(answer.get("language"), "", _MAX_NAME_LENGTH).lower()
        service = parse_short_line(answer.get("model"), self.service, _MAX_NAME_LENGTH)
        return TranscriptionResult(text, timeline.words, timeline.segments, language, service, call.usage)


_PARAKEET_FIELDS = TranscriptionAnswerFields(
    text="transcription", words="word_timestamps", segments="segment_timestamps"
)


class ParakeetTranscriber:
    """Sends the URL of the audio to `/transcribe`; the service must be able to fetch it."""

    def __init__(self, service: ModelServiceClient) -> None:
        self._service = service
        self._config = service.config

    @property
    def service(self) -> str:
        return short_model_name(self._config, _MAX_NAME_LENGTH)

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult:
        url = await audio.get_url()
        if url is None:
            raise StageFailed(
                f"{self._config.name} fetches the audio by its URL, and there is none: "
                "set PUBLIC_URL, or keep media in a bucket with STORAGE_URL"
            )
        async with self._service.log_call("transcribe") as call:
            answer = await self._service.post(
                "/transcribe", _BASE_TIMEOUT_SECONDS + audio.duration_seconds, json={"audio_url": url}
            )
            text, timeline = parse_transcription_answer(
                self._config.name, answer, _PARAKEET_FIELDS, audio.duration_seconds
            )
        progress(1.0)
        return TranscriptionResult(text, timeline.words, timeline.segments, "", self.service, call.usage)
