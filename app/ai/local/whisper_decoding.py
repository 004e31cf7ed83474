"""Speech recognition by Whisper; what it repeats or omits is recognised again in short parts.

Whisper decodes windows of 30 seconds. Repetitive speech makes it loop to the end of a window and drop what follows, or
the whole window, which happens rarely in windows with few repetitions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.ai.protocols import Word
from app.ai.sentences import join_subwords

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import Segment as WhisperSegment

Samples = NDArray[np.float32]
Span = tuple[float, float]  # seconds

SAMPLE_RATE = 16_000

# Whisper's own thresholds: text that compresses better is repetitive, less probable text is invented.
_MAX_COMPRESSION, _MIN_LOG_PROBABILITY, _MAX_NO_SPEECH = 2.4, -1.0, 0.6
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # faster-whisper's fallback list
_SEED = 0  # of sampling at temperatures above 0, for reproducible results
_MIN_WORD_SECONDS = 0.03  # shorter ones have no audio of their own
_MAX_SILENT_RUN = 2  # words without duration; more are a loop
_MAX_WORDS_PER_SECOND = 7.0  # the fastest speakers
_MIN_WORDS_PER_SECOND = 0.5  # half of the slowest speakers' rate
_MAX_WORD_SECONDS = 2.0  # of speech that one word covers
_PAUSE_SECONDS = 0.5  # around a word that count as covered
_MIN_GAP_SECONDS = 3.0  # of speech without words; the voice detection keeps pauses of up to 2 seconds
_MIN_REJECTED_SECONDS = 0.5
_PART_SECONDS = 8.0
_FRAMES_PER_SECOND = 20


@dataclass(slots=True)
class RecognizedSpeech:
    """The words of audio; `dropped` are spans, in seconds, of speech without reliable words."""

    words: list[Word] = field(default_factory=list)
    dropped: list[Span] = field(default_factory=list)


def recognize_speech(
    model: "WhisperModel", audio: Samples, language: str, report: Callable[[float], None], check: Callable[[], None]
) -> RecognizedSpeech:
    """Recognise the words of audio (16 kHz, float32); times are seconds of this audio.

    `report` gets the second reached; `check` may raise to cancel.
    """
    speech = _find_speech_spans(audio)
    if not speech:
        return RecognizedSpeech()
    found = RecognizedSpeech()
    rejected: list[Span] = []
    for window in _decode_windows(model, audio, language, report, _TEMPERATURES[:1]):
        if window.is_trusted and not window.omits_speech(speech):
            found.words.extend(window.spoken)
        else:
            rejected.append((window.start, window.end))
    for start, end in _find_uncovered_speech(speech, found.words, rejected):
        for part_start, part in _split_at_pauses(audio, start, end):
            part_end = part_start + len(part) / SAMPLE_RATE
            words, is_doubtful = _recognize_part(model, part, language, check)
            found.words.extend(Word(word.word, word.start + part_start, word.end + part_start) for word in words)
            if not words and (is_doubtful or _overlaps_any_span(rejected, part_start, part_end)):
                found.dropped.append((part_start, part_end))
    found.words.sort(key=lambda word: word.start)
    return found


def extract_speech(audio: Samples) -> Samples:
    spans = [audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] for start, end in _find_speech_spans(audio)]
    return np.concatenate(spans) if spans else np.empty(0, np.float32)


def _find_speech_spans(audio: Samples) -> list[Span]:
    from faster_whisper.vad import get_speech_timestamps

    return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in get_speech_timestamps(audio)]


@dataclass(frozen=True, slots=True)
class _WhisperWindow:
    """Whisper's output for up to 30 seconds. `spoken` are the words with audio of their own."""

    start: float
    end: float
    spoken: Sequence[Word]
    has_loop: bool
    is_probable: bool
    is_repetitive: bool

    @property
    def is_trusted(self) -> bool:
        return self.is_probable and not self.is_repetitive and not self.has_loop

    def omits_speech(self, speech: Iterable[Span]) -> bool:
        """Return whether there are far too few words for the speech in it."""
        seconds = sum(max(min(end, self.end) - max(start, self.start), 0.0) for start, end in speech)
        return seconds >= _PART_SECONDS and len(self.spoken) / seconds < _MIN_WORDS_PER_SECOND


def _recognize_part(
    model: "WhisperModel", part: Samples, language: str, check: Callable[[], None]
) -> tuple[list[Word], bool]:
    """Return the words of a short part, and whether others are in doubt.

    Repetitions are accepted here unless they are a loop; a loop at every temperature counts up to the end of its audio.
    """
    first = _decode_windows(model, part, language, lambda _: check(), _TEMPERATURES[:1])
    if all(window.is_probable and not window.has_loop for window in first):
        return [word for window in first for word in window.spoken], False
    second = _decode_windows(model, part, language, lambda _: check(), _TEMPERATURES[1:])
    for windows in (second, first):
        if windows and all(window.is_probable and not window.has_loop for window in windows):
            return [word for window in windows for word in window.spoken], False
    return [word for window in first if window.is_probable for word in window.spoken], True


def _decode_windows(
    model: "WhisperModel", audio: Samples, language: str, report: Callable[[float], None], temperatures: Sequence[float]
) -> list[_WhisperWindow]:
    import ctranslate2

    ctranslate2.set_random_seed(_SEED)
    segments, _ = model.transcribe(
        audio,
        language=language,
        vad_filter=True,
        word_timestamps=True,
        condition_on_previous_text=False,
        temperature=list(temperatures),
        compression_ratio_threshold=_MAX_COMPRESSION,
        log_prob_threshold=_MIN_LOG_PROBABILITY,
        no_speech_threshold=_MAX_NO_SPEECH,
    )
    by_window = groupby(_report_segment_ends(segments, report), key=lambda segment: segment.seek)
    return [_assess_window(list(window)) for _, window in by_window]


def _report_segment_ends(
    segments: Iterable["WhisperSegment"], report: Callable[[float], None]
) -> Iterator["WhisperSegment"]:
    for segment in segments:
        report(float(segment.end))
        yield segment


def _assess_window(window: Sequence["WhisperSegment"]) -> _WhisperWindow:
    subwords = [
        Word(each.word, float(each.start), float(each.end)) for segment in window for each in segment.words or ()
    ]
    spoken = drop_repetition_tail(subwords)
    return _WhisperWindow(
        start=float(window[0].start),
        end=float(window[-1].end),
        spoken=[word for word in join_subwords(spoken) if has_letters(word.word)],
        has_loop=len(spoken) < len(subwords) or words_per_second(spoken) > _MAX_WORDS_PER_SECOND,
        is_probable=window[0].avg_logprob >= _MIN_LOG_PROBABILITY,
        is_repetitive=window[0].compression_ratio > _MAX_COMPRESSION,
    )


def drop_repetition_tail(words: Sequence[Word]) -> list[Word]:
    """Drop runs of words without duration: a loop that went on after the audio ended."""
    kept: list[Word] = []
    for takes_time, run in groupby(words, key=lambda word: word.end - word.start >= _MIN_WORD_SECONDS):
        group = list(run)
        if takes_time or len(group) <= _MAX_SILENT_RUN:
            kept.extend(group)
    return kept


def has_letters(text: str) -> bool:
    return any(character.isalnum() for character in text)


def words_per_second(words: Sequence[Word]) -> float:
    seconds = sum(word.end - word.start for word in words)
    return len(words) / max(seconds, 1.0)


def _find_uncovered_speech(speech: Sequence[Span], words: Sequence[Word], rejected: Sequence[Span]) -> list[Span]:
    covered = [
        (word.start - _PAUSE_SECONDS, min(word.end, word.start + _MAX_WORD_SECONDS) + _PAUSE_SECONDS) for word in words
    ]
    gaps: list[Span] = []
    for start, end in speech:
        for gap_start, gap_end in _subtract_spans(start, end, covered):
            shortest = _MIN_REJECTED_SECONDS if _overlaps_any_span(rejected, gap_start, gap_end) else _MIN_GAP_SECONDS
            if gap_end - gap_start >= shortest:
                gaps.append((gap_start, gap_end))
    return gaps


def _subtract_spans(start: float, end: float, covered: Iterable[Span]) -> Iterator[Span]:
    for first, last in sorted(covered):
        if first > start:
            yield start, min(first, end)
        start = max(start, last)
        if start >= end:
            return
    yield start, end


def _overlaps_any_span(spans: Iterable[Span], start: float, end: float) -> bool:
    return any(first < end and start < last for first, last in spans)


def _split_at_pauses(audio: Samples, start: float, end: float) -> Iterator[tuple[float, Samples]]:
    """Yield parts of a few seconds that end in a quiet place, each with its start in seconds."""
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    longest = round(_PART_SECONDS * SAMPLE_RATE)
    while last - first > longest:
        cut = first + longest // 2 + find_quietest_sample_index(audio[first + longest // 2 : first + longest])
        yield first / SAMPLE_RATE, audio[first:cut]
        first = cut
    yield first / SAMPLE_RATE, audio[first:last]


def find_quietest_sample_index(audio: Samples) -> int:
    """Return the index of the sample in the middle of the quietest quarter of a second."""
    frame = SAMPLE_RATE // _FRAMES_PER_SECOND
    loudness = np.abs(audio[: len(audio) // frame * frame]).reshape(-1, frame).mean(axis=1)
    quietest = int(np.convolve(loudness, np.ones(5), "valid").argmin())
    return quietest * frame + frame * 5 // 2
