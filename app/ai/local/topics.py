"""Where a talk changes its topic: the segmentation whose sentences are nearest to the middle of their segment.

Dynamic programming finds the best segmentation within the limits. Each segment costs what a further one gains where
there are no topics at all, which is measured with the sentences of the same talk in random orders.
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
from app.ai.sentences import interpolate_words, join_words, split_sentences

_LEAD_SECONDS, _TAIL_SECONDS = 0.15, 0.3  # of silence that belong to a sentence, where there is any
_MAX_SENTENCE_SECONDS = 20.0  # of a sentence, else it is broken


@dataclass(frozen=True, slots=True)
class SentenceUnit:
    """A sentence: a moment that begins with it starts at `start`, and one that ends with it stops at `end`."""

    text: str
    start: float
    end: float
    spoken_seconds: float

    @property
    def weight(self) -> float:
        """How much it says: long sentences more than short ones, and not by their length alone."""
        return math.sqrt(len(self.text.split()))


def make_sentence_units(
    words: Sequence[Word], segments: Sequence[Segment], first: float, last: float, longest: float
) -> list[SentenceUnit]:
    """Return the sentences between two seconds, in order, none overlapping another; times have two decimals."""
    tidy = clean_words(words or list(interpolate_words(segments)), first, last)
    if not tidy:
        return []
    sentences = split_sentences(tidy, min(_MAX_SENTENCE_SECONDS, longest))
    borders = [
        math.ceil(first * 100) / 100,
        *map(_sentence_border, sentences, sentences[1:]),
        math.floor(last * 100) / 100,
    ]
    return [
        _make_sentence_unit(sentence, *limits) for sentence, limits in zip(sentences, pairwise(borders), strict=True)
    ]


def clean_words(words: Sequence[Word], first: float, last: float) -> list[Word]:
    """Return the words that have a text and times between two seconds, in order, none overlapping another."""
    told = [word for word in words if word.word.strip() and math.isfinite(word.start) and math.isfinite(word.end)]
    inside = [word for word in sorted(told, key=lambda word: word.start) if first <= word.start < last]
    starts = [*(word.start for word in inside), last]
    return [
        Word(word.word.strip(), start, min(max(word.end, start), following))
        for word, (start, following) in zip(inside, pairwise(starts), strict=True)
    ]


def _sentence_border(before: Sequence[Word], after: Sequence[Word]) -> float:
    return round((before[-1].end + after[0].start) / 2, 2)


def _make_sentence_unit(words: Sequence[Word], earliest: float, latest: float) -> SentenceUnit:
    return SentenceUnit(
        text=join_words(words),
        start=max(round(words[0].start - _LEAD_SECONDS, 2), earliest),
        end=min(round(words[-1].end + _TAIL_SECONDS, 2), latest),
        spoken_seconds=sum(word.end - word.start for word in words),
    )


Floats = NDArray[np.float64]

_SEED, _ORDERS, _SAMPLE = 0, 8, 120  # of the random orders: how many, and of how many sentences
_MIN_TOPIC_SENTENCES = 6  # about the fewest
# Chosen by talks with known topics: with less there are more false borders than missed ones, with more fewer.
_PENALTY_FACTOR = 1.15
_MEAN_SHARE = 0.5  # of what all sentences share, taken away
_SKIP_COST = 2.0  # what a sentence costs that is in no segment: more than in any, so that only limits leave one out
_SHORT_PAUSE, _LONG_PAUSE = 1.0, 10.0  # a pause of seconds that says nothing, and one that is a border
_PENALTY_STEPS = (1.0, 0.6, 0.3, 0.0, -1.0, -10.0)  # what a segment costs, from try to try, until there are enough


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """Seconds of a segment, and how many there should be at least."""

    min_length: float
    max_length: float
    min_count: int

    def allow(self, start: float, end: float) -> bool:
        return self.min_length <= end - start <= self.max_length


@dataclass(frozen=True, slots=True)
class SentenceSpan:
    """Sentences from `first` to before `last`."""

    first: int
    last: int


def segment_topics(
    sentences: Sequence[SentenceUnit], vectors: FloatArray, limits: TopicLimits, control: ComputationControl
) -> list[SentenceSpan]:
    """Return the segments, each within the limits, in order; what fits in none is left out."""
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
    """Return the segments of least cost: `cost[n]` is that of the first n sentences, `origin[n]` their last segment."""
    sums, masses = _prefix_sums(points, weights)
    pauses = np.concatenate(([0.0], np.cumsum(_pause_weights(sentences)))) * pause_price
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
    """Return the segments that `origin` tells: the sentence where one begins as a negative number, less one."""
    parts, last = [], len(origin) - 1
    while last:
        if origin[last] < 0:
            parts.append(SentenceSpan(-origin[last] - 1, last))
            last = parts[-1].first
        else:
            last = origin[last]
    return parts[::-1]


def _pause_weights(sentences: Sequence[SentenceUnit]) -> Floats:
    """Return how much the pause after each sentence but the last is a border, from 0 to 1."""
    gaps = np.array([after.start - before.end for before, after in pairwise(sentences)])
    return np.clip((gaps - _SHORT_PAUSE) / (_LONG_PAUSE - _SHORT_PAUSE), 0.0, 1.0)


def _measure_segment_penalty(points: Floats, weights: Floats) -> float:
    """Return what one more segment gains on average where the sentences come in a random order."""
    if len(points) < 4:  # that cannot be two topics of two sentences
        return float(weights.mean())
    generator = np.random.default_rng(_SEED)
    size = min(len(points), _SAMPLE)
    count = max(2, size // _MIN_TOPIC_SENTENCES)
    orders = [generator.permutation(len(points))[:size] for _ in range(_ORDERS)]
    return _PENALTY_FACTOR * float(
        np.mean([_mean_segment_gain(points[order], weights[order], count) for order in orders])
    )


def _mean_segment_gain(points: Floats, weights: Floats, count: int) -> float:
    """Return what each of `count` segments but the first gains in the best segmentation."""
    spread = _compute_all_scatters(points, weights)
    least = spread[0]
    for _ in range(count - 1):
        least = (least[:, None] + spread).min(axis=0)
    return float(spread[0, -1] - least[-1]) / (count - 1)


def _compute_all_scatters(points: Floats, weights: Floats) -> Floats:
    """Return the spread of every segment of two sentences or more, by its first sentence and its end."""
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
    """Return the sum of squared distances from the middle, for points of length 1."""
    spread: Floats = masses - (sums * sums).sum(axis=1) / masses
    return spread
