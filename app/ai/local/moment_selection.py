"""Selection of moments: their scores, expansion to the length limits, and packing of as many as are requested."""

import math
import wave
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.ai.local.compute_thread import ComputationControl
from app.ai.local.embeddings import FloatArray
from app.ai.local.topics import SentenceSpan, SentenceUnit
from app.ai.protocols import FindRequest, Word

Floats = NDArray[np.float64]

HOOKS = (
    "Here is the secret that nobody tells you.",
    "This is the biggest mistake that most people make.",
    "Let me tell you a story that changed my life.",
    "What would you do if you could not fail?",
    "The most important thing I have ever learned is this.",
    "Nobody expected what happened next.",
    "Here is why you have been doing it wrong.",
    "This will surprise you.",
    "I was completely wrong about this.",
    "The truth is that it is possible for everyone.",
    "How can you do this in three simple steps?",
    "Imagine a world in which everything is different.",
)

_HOOK, _PROMPT, _UNITY, _SPEECH, _ENERGY, _CUTS = 0.5, 1.0, 0.3, 0.3, 0.1, 0.05  # weights
_OPENING_SENTENCES, _NEAREST_HOOKS = 2, 3
_FULL_ENERGY_DECIBELS = 6.0  # above the talk's loudness, counted as full energy
_MAX_CUTS_PER_SECOND = 0.2  # per second, counted as the most
_SILENT_DECIBELS = -100.0


@dataclass(frozen=True, slots=True)
class MomentEvidence:
    """What scores are computed from; `loudness` is in dB for each second, `prompt` an embedding or None."""

    sentences: Sequence[SentenceUnit]
    vectors: FloatArray
    hooks: FloatArray
    prompt: FloatArray | None
    loudness: Floats
    scene_cuts: Sequence[float]


def score_moment(span: SentenceSpan, evidence: MomentEvidence) -> float:
    """Return a score for ranking: hook at the start, similarity to the prompt, unity, speech, energy, scene cuts."""
    sentences, vectors = evidence.sentences[span.first : span.last], evidence.vectors[span.first : span.last]
    start, end = sentences[0].start, sentences[-1].end
    length = max(end - start, 0.01)
    hooks = np.sort(vectors[:_OPENING_SENTENCES] @ evidence.hooks.T, axis=1)[:, -_NEAREST_HOOKS:].mean(axis=1)
    similarity = (vectors @ evidence.prompt).max() if evidence.prompt is not None else 0.0
    cuts = sum(start < cut < end for cut in evidence.scene_cuts)
    return float(
        _HOOK * hooks.max()
        + _PROMPT * similarity
        + _UNITY * np.linalg.norm(vectors.mean(axis=0))
        + _SPEECH * sum(sentence.spoken_seconds for sentence in sentences) / length
        + _ENERGY * _loudness_relative_to_whole(evidence.loudness, start, end)
        + _CUTS * min(cuts / length / _MAX_CUTS_PER_SECOND, 1.0)
    )


def measure_loudness(wav_path: Path | None, control: ComputationControl) -> Floats:
    """Return the loudness of each second of a 16-bit WAV file in dB, nothing if it cannot be read."""
    loudness: list[float] = []
    try:
        with wave.open(str(wav_path), "rb") as file:
            if file.getsampwidth() != 2:
                return np.empty(0)
            while data := file.readframes(file.getframerate()):
                control.check()
                power = float(np.mean(np.square(np.frombuffer(data, "<i2").astype(np.float32) / 32768)))
                loudness.append(10 * np.log10(power) if power > 0 else _SILENT_DECIBELS)
    except (OSError, EOFError, wave.Error):
        return np.empty(0)
    return np.maximum(loudness, _SILENT_DECIBELS)


def _loudness_relative_to_whole(loudness: Floats, start: float, end: float) -> float:
    inside = loudness[int(start) : max(int(end), int(start) + 1)]
    if not len(inside):
        return 0.0
    return float(np.clip((np.median(inside) - np.median(loudness)) / _FULL_ENERGY_DECIBELS, -1.0, 1.0))


TimeRange = tuple[float, float]

_SEARCH_SECONDS = 20.0  # the longest sentence
_GRID_SECONDS = 0.25  # its multiples add up exactly, so equal minimum and maximum lengths can be met


def expand_sentence_to_limits(
    sentence: SentenceUnit, sentences: Sequence[SentenceUnit], words: Sequence[Word], request: FindRequest
) -> TimeRange:
    """Return about the shortest moment within the limits that begins with a sentence, or shortly before it."""
    latest = min(sentence.start, request.duration_seconds - request.min_length)
    rough = max(math.floor(latest / _GRID_SECONDS) * _GRID_SECONDS, 0.0)
    longest = min(request.max_length, request.min_length + _SEARCH_SECONDS)
    parts: list[SentenceUnit | Word] = [*sentences, *words]
    starts = [rough, *_times_between(latest - _SEARCH_SECONDS, latest, [each.start for each in parts])]
    ends = list(_times_between(rough, latest + longest, [each.end for each in parts]))
    sought = [
        (start, end)
        for start in starts
        for end in (start + request.min_length, *ends)
        if request.min_length <= end - start <= request.max_length and end <= request.duration_seconds
    ]
    cuts = {
        time: _count_parts_cut_by_time(time, sentences) + _count_parts_cut_by_time(time, words)
        for pair in sought
        for time in pair
    }

    def cost(pair: TimeRange) -> tuple[bool, int, float]:
        start, end = pair
        return end < sentence.end, cuts[start] + cuts[end], latest - start + end - start

    return min(sought, key=cost, default=(0.0, request.min_length))


def _times_between(first: float, last: float, times: Iterable[float]) -> list[float]:
    return sorted({time for time in times if max(first, 0.0) <= time <= last})


def _count_parts_cut_by_time(time: float, parts: Sequence[SentenceUnit | Word]) -> int:
    return sum(part.start < time < part.end for part in parts)


_CUT_COST = 0.5  # for each cut sentence, in shares of speech
_MAX_CANDIDATES = 40_000


@dataclass(frozen=True, slots=True)
class _PackingCandidate:
    """A time range that may become a moment, with its score."""

    start: float
    end: float
    score: float


def pack_moments(sentences: Sequence[SentenceUnit], request: FindRequest, count: int) -> list[TimeRange]:
    """Return up to `count` moments within the length limits, in order, without overlaps.

    Dynamic programming maximises first their number, then their speech and the fewest cut sentences. Each contains the
    middle of a sentence, so there are never more moments than sentences.
    """
    candidates = sorted(
        _score_packing_candidates(set(_propose_shortest_moments(sentences, request, count)), sentences),
        key=lambda each: (each.end, each.start),
    )
    ends = [each.end for each in candidates]
    layers = [[(0.0, -1)] * (len(candidates) + 1)]  # best score among the first n candidates, and its last one
    for _ in range(count):
        layer = _extend_selection(candidates, ends, layers[-1])
        if layer[-1][1] < 0:
            break
        layers.append(layer)
    return _trace_back_selection(candidates, ends, layers)


def _extend_selection(
    candidates: Sequence[_PackingCandidate], ends: Sequence[float], before: Sequence[tuple[float, int]]
) -> list[tuple[float, int]]:
    is_first = before[-1][1] < 0
    best = [(-math.inf, -1)]
    for number, each in enumerate(candidates):
        score, last = before[bisect_right(ends, each.start)]
        is_possible = is_first or last >= 0
        best.append(max(best[-1], (score + each.score, number)) if is_possible else best[-1])
    return best


def _trace_back_selection(
    candidates: Sequence[_PackingCandidate], ends: Sequence[float], layers: Sequence[Sequence[tuple[float, int]]]
) -> list[TimeRange]:
    times: list[TimeRange] = []
    index = len(candidates)
    for layer in reversed(layers[1:]):
        chosen = candidates[layer[index][1]]
        times.append((chosen.start, chosen.end))
        index = bisect_right(ends, chosen.start)
    return times[::-1]


def _propose_shortest_moments(
    sentences: Sequence[SentenceUnit], request: FindRequest, count: int
) -> Iterator[TimeRange]:
    duration, shortest = request.duration_seconds, request.min_length
    for sentence in sentences[: _MAX_CANDIDATES // 5]:
        middle = (sentence.start + sentence.end) / 2
        yield from _fit_shortest_moment(sentence.start, request)
        yield from _fit_shortest_moment(sentence.end - shortest, request)
        yield from _fit_shortest_moment(sentence.end, request)
        yield from _fit_shortest_moment(sentence.start - shortest, request)
        yield from _fit_shortest_moment(middle - shortest / 2, request)
    for number in range(min(int(duration / shortest), _MAX_CANDIDATES)):
        yield from _fit_shortest_moment(number * shortest, request)
        yield from _fit_shortest_moment(duration - (number + 1) * shortest, request)
    for number in range(count):
        yield from _fit_shortest_moment(number * duration / count, request)


def _fit_shortest_moment(start: float, request: FindRequest) -> Iterator[TimeRange]:
    """Yield the shortest moment that starts here, or as near as the video allows."""
    latest = request.duration_seconds - request.min_length
    start = max(min(start, latest), 0.0)
    end = start + request.min_length
    for candidate in (end, math.nextafter(end, math.inf), math.nextafter(end, 0.0)):
        if request.min_length <= candidate - start <= request.max_length and candidate <= request.duration_seconds:
            yield start, candidate
            return


def _score_packing_candidates(
    candidate_times: Iterable[TimeRange], sentences: Sequence[SentenceUnit]
) -> Iterator[_PackingCandidate]:
    middles = [(sentence.start + sentence.end) / 2 for sentence in sentences]
    ends = [sentence.end for sentence in sentences]
    for start, end in candidate_times:
        if bisect_right(middles, start) == bisect_right(middles, end):
            continue
        spoken, cuts = 0.0, 0
        for sentence in sentences[bisect_right(ends, start) :]:
            if sentence.start >= end:
                break
            spoken += min(sentence.end, end) - max(sentence.start, start)
            cuts += (sentence.start < start) + (sentence.end > end)
        yield _PackingCandidate(start, end, spoken / (end - start) - _CUT_COST * cuts)
