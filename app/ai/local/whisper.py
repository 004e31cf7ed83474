"""Speech to text by Whisper, on the CPU of this machine."""

import os
import time
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from app.ai.local.threads import Control, OneThread
from app.ai.local.weights import WHISPER_BASE, WHISPER_TINY_EN, Weights, missing_model, read_model
from app.ai.protocols import Audio, Progress, Transcribed, Usage, Word
from app.ai.sentences import join_pieces, join_words, make_captions
from app.core.errors import StageFailed

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

Choice = Literal["auto", "tiny.en", "base"]
Sound = NDArray[np.float32]

RATE = 16_000
NO_LANGUAGE = "und"  # ISO 639-2: undetermined

_PIECE_SECONDS = 120  # what is in memory at once
_CUT_SECONDS = 20  # the end of a piece, where the quietest place is looked for
_DETECTION_SECONDS = 30  # what Whisper looks at to tell a language
_NOT_ISO = {"jw": "jv"}  # Whisper's name of Javanese
# Whisper's own limits: text that compresses better repeats itself, text that is less probable was not heard.
_MAX_COMPRESSION, _MIN_LOG_PROBABILITY, _MAX_NO_SPEECH = 2.4, -1.0, 0.6


class LocalTranscriber:
    """Transcribes one sound at a time; the models are loaded when they are first needed, and kept."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._thread = OneThread("whisper")
        self._models: dict[str, WhisperModel] = {}

    @property
    def service(self) -> str:
        return f"whisper-{self._choice}"

    async def transcribe(self, audio: Audio, progress: Progress) -> Transcribed:
        return await self._thread.run(lambda control: self._transcribe(audio, control), progress)

    def _transcribe(self, audio: Audio, control: Control) -> Transcribed:
        began = time.perf_counter()
        weights, language = self._choose(audio.path, control)
        model = self._load(weights)
        words: list[Word] = []
        for start, piece in _read_pieces(audio.path):
            control.tell(start / audio.duration_seconds if audio.duration_seconds else 0.0)
            words.extend(_tidy(_hear(model, piece, language, start, audio, control), words, audio.duration_seconds))
        usage = Usage(calls=1, seconds=time.perf_counter() - began)
        return Transcribed(
            text=join_words(words),
            words=words,
            segments=make_captions(words),
            language=_NOT_ISO.get(language, language) if words else NO_LANGUAGE,
            service=weights.name,
            usage=usage,
        )

    def _choose(self, path: Path, control: Control) -> tuple[Weights, str]:
        if self._choice == "tiny.en":
            return WHISPER_TINY_EN, "en"
        language = _detect_language(self._load(WHISPER_BASE), path, control)
        if self._choice == "auto" and language == "en":
            return WHISPER_TINY_EN, language
        return WHISPER_BASE, language

    def _load(self, weights: Weights) -> "WhisperModel":
        if weights.name not in self._models:
            self._models[weights.name] = _load_model(weights)
        return self._models[weights.name]


def _load_model(weights: Weights) -> "WhisperModel":
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise missing_model(weights.name) from None
    files = read_model(weights)
    return WhisperModel(
        weights.name,
        device="cpu",
        compute_type="int8",
        cpu_threads=os.cpu_count() or 1,
        files={"model.bin": files.weights, **files.others},
    )


def _detect_language(model: "WhisperModel", path: Path, control: Control) -> str:
    """Return the language of the first half minute of speech; English where there is no speech, which costs least."""
    voiced: list[Sound] = []
    for _, piece in _read_pieces(path):
        control.check()
        voiced.append(_keep_speech(piece))
        if sum(map(len, voiced)) >= _DETECTION_SECONDS * RATE:
            break
    speech = np.concatenate(voiced) if voiced else np.empty(0, np.float32)
    return model.detect_language(audio=speech)[0] if len(speech) else "en"


def _keep_speech(sound: Sound) -> Sound:
    from faster_whisper.vad import collect_chunks, get_speech_timestamps

    chunks, _ = collect_chunks(sound, get_speech_timestamps(sound))
    return np.concatenate(chunks)


def _hear(
    model: "WhisperModel", sound: Sound, language: str, offset: float, audio: Audio, control: Control
) -> Iterator[Word]:
    """Yield the words of a piece, in seconds of the whole sound."""
    segments, _ = model.transcribe(
        sound,
        language=language,
        vad_filter=True,
        word_timestamps=True,
        condition_on_previous_text=False,
        temperature=0.0,  # a guess at another one would be another each time
        compression_ratio_threshold=_MAX_COMPRESSION,
        log_prob_threshold=_MIN_LOG_PROBABILITY,
        no_speech_threshold=_MAX_NO_SPEECH,
    )
    for segment in segments:
        control.tell((offset + float(segment.end)) / audio.duration_seconds if audio.duration_seconds else 0.0)
        if segment.compression_ratio <= _MAX_COMPRESSION and segment.avg_logprob >= _MIN_LOG_PROBABILITY:
            pieces = [Word(each.word, float(each.start), float(each.end)) for each in segment.words or ()]
            for word in join_pieces(pieces):
                yield Word(word.word, offset + word.start, offset + word.end)


def _tidy(heard: Iterator[Word], before: Sequence[Word], duration: float) -> Iterator[Word]:
    """Yield the words that are any, each with times that do not run backwards and lie within the sound."""
    last = before[-1].end if before else 0.0
    for word in heard:
        start = min(max(word.start, last), duration)
        last = min(max(word.end, start), duration)
        if word.word:
            yield Word(word.word, round(start, 3), round(last, 3))


def _read_pieces(path: Path) -> Iterator[tuple[float, Sound]]:
    """Yield a sound in pieces that end where it is quiet, each with the second where it starts."""
    start, rest = 0, np.empty(0, np.float32)
    for block in _read_blocks(path):
        sound = np.concatenate((rest, block))
        place = _find_quiet(sound) if len(sound) >= _PIECE_SECONDS * RATE else 0
        if place:
            yield start / RATE, sound[:place]
        start, rest = start + place, sound[place:]
    if len(rest):
        yield start / RATE, rest


def _read_blocks(path: Path) -> Iterator[Sound]:
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
                raise StageFailed("The sound is not a WAV file with 16 kHz, one channel and 16 bits")
            while data := file.readframes(_PIECE_SECONDS * RATE):
                yield np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    except (wave.Error, EOFError):
        raise StageFailed("The sound is not a WAV file that can be read") from None


def _find_quiet(sound: Sound) -> int:
    """Return the middle of the quietest half second near the end of a piece."""
    frame = RATE // 10
    tail = sound[-_CUT_SECONDS * RATE :]
    loudness = np.abs(tail[: len(tail) // frame * frame]).reshape(-1, frame).mean(axis=1)
    quietest = int(np.convolve(loudness, np.ones(5), "valid").argmin())
    return len(sound) - len(tail) + quietest * frame + frame * 5 // 2
