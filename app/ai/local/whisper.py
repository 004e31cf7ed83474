"""Transcription by Whisper on the CPU of this machine (arXiv:2212.04356)."""

import os
import time
import wave
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.ai.local.compute_thread import ComputationControl, ComputeThread
from app.ai.local.model_files import (
    WHISPER_BASE,
    WHISPER_TINY_EN,
    ModelPackage,
    make_model_missing_error,
    read_model_files,
)
from app.ai.local.whisper_decoding import (
    SAMPLE_RATE,
    Samples,
    extract_speech,
    find_quietest_sample_index,
    recognize_speech,
)
from app.ai.protocols import AudioFile, ProgressCallback, TranscriptionResult, Usage, Word
from app.ai.sentences import join_words, make_caption_segments
from app.core.errors import StageFailed

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

WhisperChoice = Literal["auto", "tiny.en", "base"]
UNDETERMINED_LANGUAGE = "und"  # ISO 639-2: undetermined

_CHUNK_SECONDS = 120  # in memory at a time
_CUT_SECONDS = 20  # at the end of a chunk, searched for the quietest place
WHISPER_WINDOW_SECONDS = 30  # Whisper's own window; language detection reads one
_NOT_ISO = {"jw": "jv"}  # Whisper's code of Javanese


class WhisperTranscriber:
    """Transcribes on the CPU, taking turns with other transcriptions after each chunk; loads models on first use."""

    def __init__(self, choice: WhisperChoice) -> None:
        self._choice = choice
        self._thread = ComputeThread("whisper")
        self._models: dict[str, WhisperModel] = {}

    @property
    def service(self) -> str:
        return f"whisper-{self._choice}"

    async def transcribe(self, audio: AudioFile, progress: ProgressCallback) -> TranscriptionResult:
        transcription = _WhisperTranscription(audio)
        try:
            while await self._thread.run(lambda control: self._transcribe_next_chunk(transcription, control), progress):
                pass
        finally:
            transcription.close()
        return transcription.to_result()

    def _transcribe_next_chunk(self, transcription: "_WhisperTranscription", control: ComputationControl) -> bool:
        """Transcribe one chunk, and choose the model before the first; return whether more follow."""
        began = time.perf_counter()
        if transcription.weights is None:
            transcription.weights, transcription.language = self._choose_model_and_language(
                transcription.audio.path, control
            )
        is_unfinished = transcription.transcribe_chunk(self._load_model_once(transcription.weights), control)
        transcription.seconds += time.perf_counter() - began
        return is_unfinished

    def _choose_model_and_language(self, wav_path: Path, control: ComputationControl) -> tuple[ModelPackage, str]:
        if self._choice == "tiny.en":
            return WHISPER_TINY_EN, "en"
        language = _detect_language(self._load_model_once(WHISPER_BASE), wav_path, control)
        if self._choice == "auto" and language == "en":
            return WHISPER_TINY_EN, language
        return WHISPER_BASE, language

    def _load_model_once(self, weights: ModelPackage) -> "WhisperModel":
        if weights.name not in self._models:
            self._models[weights.name] = _load_whisper_model(weights)
        return self._models[weights.name]


class _WhisperTranscription:
    """The state of one transcription; used by one thread at a time."""

    def __init__(self, audio: AudioFile) -> None:
        self.audio = audio
        self.weights: ModelPackage | None = None
        self.language = UNDETERMINED_LANGUAGE
        self.seconds = 0.0  # of computing, without waiting for turns
        self._chunks = _read_audio_chunks(audio.path)
        self._next_chunk: tuple[float, Samples] | None = None  # read ahead, with its start
        self._words: list[Word] = []
        self._dropped: list[tuple[float, float]] = []

    def transcribe_chunk(self, model: "WhisperModel", control: ComputationControl) -> bool:
        start, chunk = self._next_chunk or next(self._chunks, (0.0, None))
        if chunk is None:
            return False
        duration = self.audio.duration_seconds

        def report(second: float) -> None:
            control.report((start + second) / duration if duration else 0.0)

        report(0.0)
        found = recognize_speech(model, chunk, self.language, report, control.check)
        words = (Word(word.word, start + word.start, start + word.end) for word in found.words)
        self._words.extend(_fix_word_times(words, self._words, duration))
        self._dropped.extend((start + first, start + last) for first, last in found.dropped)
        self._next_chunk = next(self._chunks, None)
        return self._next_chunk is not None

    def close(self) -> None:
        self._chunks.close()

    def to_result(self) -> TranscriptionResult:
        return TranscriptionResult(
            text=join_words(self._words),
            words=self._words,
            segments=make_caption_segments(self._words),
            language=_NOT_ISO.get(self.language, self.language) if self._words else UNDETERMINED_LANGUAGE,
            service=self.weights.name if self.weights else "",
            usage=Usage(calls=1, seconds=self.seconds),
            dropped=self._dropped,
        )


def _load_whisper_model(weights: ModelPackage) -> "WhisperModel":
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise make_model_missing_error(weights.name) from None
    files = read_model_files(weights)
    return WhisperModel(
        weights.name,
        device="cpu",
        compute_type="int8",
        cpu_threads=os.cpu_count() or 1,
        files={"model.bin": files.weights, **files.others},
    )


def _detect_language(model: "WhisperModel", wav_path: Path, control: ComputationControl) -> str:
    """Return the language of the first 30 seconds of speech, English if there is none."""
    voiced: list[Samples] = []
    for _, chunk in _read_audio_chunks(wav_path):
        control.check()
        voiced.append(extract_speech(chunk))
        if sum(map(len, voiced)) >= WHISPER_WINDOW_SECONDS * SAMPLE_RATE:
            break
    speech = np.concatenate(voiced) if voiced else np.empty(0, np.float32)
    return model.detect_language(audio=speech)[0] if len(speech) else "en"


def _fix_word_times(words: Iterator[Word], previous_words: Sequence[Word], duration: float) -> Iterator[Word]:
    """Yield non-empty words with monotonic times inside the audio."""
    last = previous_words[-1].end if previous_words else 0.0
    for word in words:
        start = min(max(word.start, last), duration)
        last = min(max(word.end, start), duration)
        if word.word:
            yield Word(word.word, round(start, 3), round(last, 3))


def _read_audio_chunks(wav_path: Path) -> Generator[tuple[float, Samples]]:
    start, rest = 0, np.empty(0, np.float32)
    for block in _read_wav_blocks(wav_path):
        audio = np.concatenate((rest, block))
        cut = _find_quiet_cut_sample(audio) if len(audio) >= _CHUNK_SECONDS * SAMPLE_RATE else 0
        if cut:
            yield start / SAMPLE_RATE, audio[:cut]
        start, rest = start + cut, audio[cut:]
    if len(rest):
        yield start / SAMPLE_RATE, rest


def _read_wav_blocks(wav_path: Path) -> Iterator[Samples]:
    try:
        with wave.open(str(wav_path), "rb") as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                raise StageFailed("The audio is not a WAV file with 16 kHz, one channel and 16 bits")
            while data := file.readframes(_CHUNK_SECONDS * SAMPLE_RATE):
                yield np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    except (wave.Error, EOFError):
        raise StageFailed("The audio is not a WAV file that can be read") from None


def _find_quiet_cut_sample(audio: Samples) -> int:
    first = max(len(audio) - _CUT_SECONDS * SAMPLE_RATE, 0)
    return first + find_quietest_sample_index(audio[first:])
