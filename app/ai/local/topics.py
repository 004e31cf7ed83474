"""Where a talk changes its topic: the segmentation whose sentences are nearest to the middle of their segment.

Dynamic programming finds the best segmentation within the limits. Each segment costs what a further one gains where
there are no topics at all, which is measured with the sentences of the same talk in random orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.ai.local.threads import Control
from app.ai.local.units import Unit
from app.ai.local.vectors import Array

Floats = NDArray[np.float64]

_SEED, _ORDERS, _SAMPLE = 0, 8, 120  # of the random orders: how many, and of how many sentences
_SENTENCES_OF_A_TOPIC = 6  # about the fewest
# Chosen by talks with known topics: with less there are more false borders than missed ones, with more fewer.
_CAUTION = 1.15
_COMMON = 0.5  # of what all sentences share, taken away
_LEFT_OUT = 2.0  # what a sentence costs that is in no segment: more than in any, so that only limits leave one out
_SHORT_PAUSE, _LONG_PAUSE = 1.0, 10.0  # a pause of seconds that says nothing, and one that is a border
_EASIER = (1.0, 0.6, 0.3, 0.0, -1.0, -10.0)  # what a segment costs, from try to try, until there are enough


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of a segment, and how many there should be at least."""

    min_length: float
    max_length: float
    min_count: int

    def allow(self, start: float, end: float) -> bool:
        return self.min_length <= end - start <= self.max_length


@dataclass(frozen=True, slots=True)
class Part:
    """Sentences from `first` to before `last`."""

    first: int
    last: int


def find_topics(units: Sequence[Unit], vectors: Array, limits: Limits, control: Control) -> list[Part]:
    """Return the segments, each within the limits, in order; what fits in none is left out."""
    if not units:
        return []
    weights = np.array([unit.weight for unit in units])
    weights /= weights.mean()
    points = _stand_out(vectors.astype(np.float64))
    price = _price_topic(points, weights)
    best: list[Part] = []
    for factor in _EASIER:
        control.check()
        found = _segment(units, points, weights, price, price * factor, limits, control)
        if len(found) > len(best):
            best = found
        if len(best) >= limits.min_count:
            break
    return best


def _stand_out(vectors: Floats) -> Floats:
    centred = vectors - _COMMON * vectors.mean(axis=0)
    points: Floats = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    return points


def _segment(
    units: Sequence[Unit],
    points: Floats,
    weights: Floats,
    pause_price: float,
    price: float,
    limits: Limits,
    control: Control,
) -> list[Part]:
    """Return the segments of least cost: `cost[n]` is that of the first n sentences, `origin[n]` their last segment."""
    sums, masses = _accumulate(points, weights)
    pauses = np.concatenate(([0.0], np.cumsum(_pauses(units)))) * pause_price
    starts = np.array([unit.start for unit in units])
    cost, origin = np.zeros(len(units) + 1), [0] * (len(units) + 1)
    for last in range(1, len(units) + 1):
        control.check()
        cost[last], origin[last] = cost[last - 1] + _LEFT_OUT * weights[last - 1], last - 1
        lengths = units[last - 1].end - starts[:last]
        fitting = np.flatnonzero((lengths >= limits.min_length) & (lengths <= limits.max_length))
        if len(fitting):
            spread = _spread(sums[last] - sums[fitting], masses[last] - masses[fitting])
            total = cost[fitting] + spread + pauses[last - 1] - pauses[fitting] + price
            place = int(total.argmin())
            if total[place] < cost[last]:
                cost[last], origin[last] = total[place], -int(fitting[place]) - 1
    return _walk_back(origin)


def _walk_back(origin: Sequence[int]) -> list[Part]:
    """Return the segments that `origin` tells: the sentence where one begins as a negative number, less one."""
    parts, last = [], len(origin) - 1
    while last:
        if origin[last] < 0:
            parts.append(Part(-origin[last] - 1, last))
            last = parts[-1].first
        else:
            last = origin[last]
    return parts[::-1]


def _pauses(units: Sequence[Unit]) -> Floats:
    """Return how much the pause after each sentence but the last is a border, from 0 to 1."""
    gaps = np.array([after.start - before.end for before, after in pairwise(units)])
    return np.clip((gaps - _SHORT_PAUSE) / (_LONG_PAUSE - _SHORT_PAUSE), 0.0, 1.0)


def _price_topic(points: Floats, weights: Floats) -> float:
    """Return what one more segment gains on average where the sentences come in a random order."""
    if len(points) < 4:  # that cannot be two topics of two sentences
        return float(weights.mean())
    generator = np.random.default_rng(_SEED)
    size = min(len(points), _SAMPLE)
    count = max(2, size // _SENTENCES_OF_A_TOPIC)
    orders = [generator.permutation(len(points))[:size] for _ in range(_ORDERS)]
    return _CAUTION * float(np.mean([_gain(points[order], weights[order], count) for order in orders]))


def _gain(points: Floats, weights: Floats, count: int) -> float:
    """Return what each of `count` segments but the first gains in the best segmentation."""
    spread = _all_spreads(points, weights)
    least = spread[0]
    for _ in range(count - 1):
        least = (least[:, None] + spread).min(axis=0)
    return float(spread[0, -1] - least[-1]) / (count - 1)


def _all_spreads(points: Floats, weights: Floats) -> Floats:
    """Return the spread of every segment of two sentences or more, by its first sentence and its end."""
    sums, masses = _accumulate(points, weights)
    size = len(points) + 1
    spreads = np.full((size, size), np.inf)
    for first in range(size - 2):
        rest = slice(first + 2, size)
        spreads[first, rest] = _spread(sums[rest] - sums[first], masses[rest] - masses[first])
    return spreads


def _accumulate(points: Floats, weights: Floats) -> tuple[Floats, Floats]:
    sums = np.concatenate((np.zeros((1, points.shape[1])), np.cumsum(points * weights[:, None], axis=0)))
    return sums, np.concatenate(([0.0], np.cumsum(weights)))


def _spread(sums: Floats, masses: Floats) -> Floats:
    """Return the sum of squared distances from the middle, for points of length 1."""
    spread: Floats = masses - (sums * sums).sum(axis=1) / masses
    return spread
