"""Enough moments where the topics of a talk make too few: each is widened by the silence around its speech."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.ai.local.units import Unit
from app.ai.local.widening import Times
from app.ai.protocols import FindRequest

_CUT_COST = 0.5  # of a moment that begins or ends inside a sentence, in shares of it that are speech
_MOST_CANDIDATES = 40_000


@dataclass(frozen=True, slots=True)
class _Candidate:
    start: float
    end: float
    score: float


def pack_moments(units: Sequence[Unit], request: FindRequest, count: int) -> list[Times]:
    """Return up to `count` moments within the limits of length, in order, none overlapping another.

    Each has the middle of at least one of the units, so that there are never more moments than units. Of as many
    moments as possible those are chosen that have most speech and cut the fewest sentences.
    """
    candidates = sorted(_rate(set(_list_times(units, request, count)), units), key=lambda each: (each.end, each.start))
    ends = [each.end for each in candidates]
    layers = [[(0.0, -1)] * (len(candidates) + 1)]  # score of the best choice among the first so many, and its last
    for _ in range(count):
        layer = _add_one(candidates, ends, layers[-1])
        if layer[-1][1] < 0:
            break
        layers.append(layer)
    return _walk_back(candidates, ends, layers)


def _add_one(
    candidates: Sequence[_Candidate], ends: Sequence[float], before: Sequence[tuple[float, int]]
) -> list[tuple[float, int]]:
    """Return the best choices of one more moment than those of `before`."""
    is_first = before[-1][1] < 0
    best = [(-math.inf, -1)]
    for number, each in enumerate(candidates):
        score, last = before[bisect_right(ends, each.start)]
        is_possible = is_first or last >= 0
        best.append(max(best[-1], (score + each.score, number)) if is_possible else best[-1])
    return best


def _walk_back(
    candidates: Sequence[_Candidate], ends: Sequence[float], layers: Sequence[Sequence[tuple[float, int]]]
) -> list[Times]:
    times: list[Times] = []
    place = len(candidates)
    for layer in reversed(layers[1:]):
        chosen = candidates[layer[place][1]]
        times.append((chosen.start, chosen.end))
        place = bisect_right(ends, chosen.start)
    return times[::-1]


def _list_times(units: Sequence[Unit], request: FindRequest, count: int) -> Iterator[Times]:
    """Yield times within the limits: beside sentences, around them, and side by side over the whole video."""
    duration, shortest = request.duration_seconds, request.min_length
    for unit in units[: _MOST_CANDIDATES // 5]:
        middle = (unit.start + unit.end) / 2
        yield from _fit(unit.start, request)
        yield from _fit(unit.end - shortest, request)
        yield from _fit(unit.end, request)
        yield from _fit(unit.start - shortest, request)
        yield from _fit(middle - shortest / 2, request)
    for number in range(min(int(duration / shortest), _MOST_CANDIDATES)):
        yield from _fit(number * shortest, request)
        yield from _fit(duration - (number + 1) * shortest, request)
    for number in range(count):
        yield from _fit(number * duration / count, request)


def _fit(start: float, request: FindRequest) -> Iterator[Times]:
    """Yield the shortest moment that starts here, or as near as the video allows it."""
    latest = request.duration_seconds - request.min_length
    start = max(min(start, latest), 0.0)
    end = start + request.min_length
    for candidate in (end, math.nextafter(end, math.inf), math.nextafter(end, 0.0)):
        if request.min_length <= candidate - start <= request.max_length and candidate <= request.duration_seconds:
            yield start, candidate
            return


def _rate(times: Iterable[Times], units: Sequence[Unit]) -> Iterator[_Candidate]:
    """Yield the times that have the middle of a sentence, with how good they are."""
    middles = [(unit.start + unit.end) / 2 for unit in units]
    ends = [unit.end for unit in units]
    for start, end in times:
        if bisect_right(middles, start) == bisect_right(middles, end):
            continue
        spoken, cuts = 0.0, 0
        for unit in units[bisect_right(ends, start) :]:
            if unit.start >= end:
                break
            spoken += min(unit.end, end) - max(unit.start, start)
            cuts += (unit.start < start) + (unit.end > end)
        yield _Candidate(start, end, spoken / (end - start) - _CUT_COST * cuts)
