"""Topic segmentation: sentences, and the segments in which they are most similar to their segment's mean.

Dynamic programming finds the best segmentation within the limits. Each segment has a penalty, which is what one more
segment gains without any topics, measured on the same sentences in random orders.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.ai.local.compute_thread import ComputationControl
from app.ai.local.embeddings import FloatArray
from app.ai.protocols import Segment, Word
from app.ai.sentences import interpolate_word_times, join_words, split_sentences

_LEAD_SECONDS, _TAIL_SECONDS = 0.15, 0.3  # of silence around a sentence that belong to it
_MAX_SENTENCE_SECONDS = 20.0  # longer sentences are split


@dataclass(frozen=True, slots=True)
class SentenceUnit:
    """A sentence; `start` and `end` are the times, in seconds, at which a moment may begin and end with it."""

    text: str
    start: float
    end: float
    spoken_seconds: float

    @property
    def weight(self) -> float:
        return math.sqrt(len(self.text.split()))


def make_sentence_units(
    words: Sequence[Word], segments: Sequence[Segment], first: float, last: float, longest: float
) -> list[SentenceUnit]:
    """Return the sentences between two times, in order, without overlaps; times have two decimals."""
    tidy = clean_words(words or list(interpolate_word_times(segments)), first, last)
    if not tidy:
        return []
    sentences = split_sentences(tidy, min(_MAX_SENTENCE_SECONDS, longest))
    borders = [
        math.ceil(first * 100) / 100,
        *map(_middle_of_pause_between, sentences, sentences[1:]),
        math.floor(last * 100) / 100,
    ]
    return [
        _make_sentence_unit(sentence, *limits) for sentence, limits in zip(sentences, pairwise(borders), strict=True)
    ]


def clean_words(words: Sequence[Word], first: float, last: float) -> list[Word]:
    """Return the words with text and finite times between two times, in order, without overlaps."""
    timed = [word for word in words if word.word.strip() and math.isfinite(word.start) and math.isfinite(word.end)]
    inside = [word for word in sorted(timed, key=lambda word: word.start) if first <= word.start < last]
    starts = [*(word.start for word in inside), last]
    return [
        Word(word.word.strip(), start, min(max(word.end, start), following))
        for word, (start, following) in zip(inside, pairwise(starts), strict=True)
    ]


def _middle_of_pause_between(before: Sequence[Word], after: Sequence[Word]) -> float:
    return round((before[-1].end + after[0].start) / 2, 2)


def _make_sentence_unit(words: Sequence[Word], earliest: float, latest: float) -> SentenceUnit:
    return SentenceUnit(
        text=join_words(words),
        start=max(round(words[0].start - _LEAD_SECONDS, 2), earliest),
        end=min(round(words[-1].end + _TAIL_SECONDS, 2), latest),
        spoken_seconds=sum(word.end - word.start for word in words),
    )


Floats = NDArray[np.float64]

_SEED, _ORDERS, _SAMPLE = 0, 8, 120  # random orders: their number and the sentences in each
_MIN_TOPIC_SENTENCES = 6  # typical minimum
# Tuned on talks with known topics: lower values give more false borders, higher ones more missed borders.
_PENALTY_FACTOR = 1.15
_MEAN_SHARE = 0.5  # of the mean embedding that is subtracted
_SKIP_COST = 2.0  # more than in any segment, so only the limits skip a sentence
_SHORT_PAUSE, _LONG_PAUSE = 1.0, 10.0  # seconds: no sign of a border, and a certain one
_PENALTY_STEPS = (1.0, 0.6, 0.3, 0.0, -1.0, -10.0)  # factors of the penalty, until there are enough segments


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """Lengths of a segment in seconds, and the smallest number of segments."""

    min_length: float
    max_length: float
    min_count: int


@dataclass(frozen=True, slots=True)
class SentenceSpan:
    """Sentences `first` to `last`, exclusive."""

    first: int
    last: int


def segment_topics(
    sentences: Sequence[SentenceUnit], vectors: FloatArray, limits: TopicLimits, control: ComputationControl
) -> list[SentenceSpan]:
    """Return segments within the limits, in order; sentences that fit into none are skipped."""
    if not sentences:
        return []
    weights = np.array([sentence.weight for sentence in sentences])
    weights /= weights.mean()
    points = _center_embeddings(vectors.astype(np.float64))
    price = _measure_segment_penalty(points, weights)
    best: list[SentenceSpan] = []
    for factor in _PENALTY_STEPS:
        control.check()
        found = _find_best_segmentation(sentences, points, weights, price, price * factor, limits, control)
        if len(found) > len(best):
            best = found
        if len(best) >= limits.min_count:
            break
    return best


def _center_embeddings(vectors: Floats) -> Floats:
    centred = vectors - _MEAN_SHARE * vectors.mean(axis=0)
    points: Floats = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    return points


def _find_best_segmentation(
    sentences: Sequence[SentenceUnit],
    points: Floats,
    weights: Floats,
    pause_price: float,
    price: float,
    limits: TopicLimits,
    control: ComputationControl,
) -> list[SentenceSpan]:
    """Minimise the cost: `cost[n]` is that of the first n sentences, `origin[n]` encodes their last step."""
    sums, masses = _prefix_sums(points, weights)
    pauses = np.concatenate(([0.0], np.cumsum(_weight_pauses_between(sentences)))) * pause_price
    starts = np.array([sentence.start for sentence in sentences])
    cost, origin = np.zeros(len(sentences) + 1), [0] * (len(sentences) + 1)
    for last in range(1, len(sentences) + 1):
        control.check()
        cost[last], origin[last] = cost[last - 1] + _SKIP_COST * weights[last - 1], last - 1
        lengths = sentences[last - 1].end - starts[:last]
        fitting = np.flatnonzero((lengths >= limits.min_length) & (lengths <= limits.max_length))
        if len(fitting):
            spread = _compute_scatter(sums[last] - sums[fitting], masses[last] - masses[fitting])
            total = cost[fitting] + spread + pauses[last - 1] - pauses[fitting] + price
            index = int(total.argmin())
            if total[index] < cost[last]:
                cost[last], origin[last] = total[index], -int(fitting[index]) - 1
    return _trace_segments(origin)


def _trace_segments(origin: Sequence[int]) -> list[SentenceSpan]:
    """Follow `origin` back: a negative value -i - 1 is a segment that begins at i, others skip a sentence."""
    parts, last = [], len(origin) - 1
    while last:
        if origin[last] < 0:
            parts.append(SentenceSpan(-origin[last] - 1, last))
            last = parts[-1].first
        else:
            last = origin[last]
    return parts[::-1]


def _weight_pauses_between(sentences: Sequence[SentenceUnit]) -> Floats:
    gaps = np.array([after.start - before.end for before, after in pairwise(sentences)])
    return np.clip((gaps - _SHORT_PAUSE) / (_LONG_PAUSE - _SHORT_PAUSE), 0.0, 1.0)


def _measure_segment_penalty(points: Floats, weights: Floats) -> float:
    """Return the mean gain of one more segment over random orders of the sentences."""
    if len(points) < 4:  # too few for two topics
        return float(weights.mean())
    generator = np.random.default_rng(_SEED)
    size = min(len(points), _SAMPLE)
    count = max(2, size // _MIN_TOPIC_SENTENCES)
    orders = [generator.permutation(len(points))[:size] for _ in range(_ORDERS)]
    return _PENALTY_FACTOR * float(
        np.mean([_mean_segment_gain(points[order], weights[order], count) for order in orders])
    )


def _mean_segment_gain(points: Floats, weights: Floats, count: int) -> float:
    spread = _compute_all_scatters(points, weights)
    least = spread[0]
    for _ in range(count - 1):
        least = (least[:, None] + spread).min(axis=0)
    return float(spread[0, -1] - least[-1]) / (count - 1)


def _compute_all_scatters(points: Floats, weights: Floats) -> Floats:
    sums, masses = _prefix_sums(points, weights)
    size = len(points) + 1
    spreads = np.full((size, size), np.inf)
    for first in range(size - 2):
        rest = slice(first + 2, size)
        spreads[first, rest] = _compute_scatter(sums[rest] - sums[first], masses[rest] - masses[first])
    return spreads


def _prefix_sums(points: Floats, weights: Floats) -> tuple[Floats, Floats]:
    sums = np.concatenate((np.zeros((1, points.shape[1])), np.cumsum(points * weights[:, None], axis=0)))
    return sums, np.concatenate(([0.0], np.cumsum(weights)))


def _compute_scatter(sums: Floats, masses: Floats) -> Floats:
    """Return the sum of squared distances to the mean, for unit vectors."""
    spread: Floats = masses - (sums * sums).sum(axis=1) / masses
    return spread
