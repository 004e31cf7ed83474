"""A moment of few sentences, with the silence around them: it cuts no sentence, or at least no word, where it can."""

import math
from collections.abc import Iterable, Sequence

from app.ai.local.units import Unit
from app.ai.protocols import FindRequest, Word

Times = tuple[float, float]

_NEAR_SECONDS = 20.0  # as long as the longest sentence
_GRID_SECONDS = 0.25  # floats that are multiples of it add up exactly, so that a length keeps limits that are equal


def widen(unit: Unit, units: Sequence[Unit], words: Sequence[Word], request: FindRequest) -> Times:
    """Return about the shortest moment that the limits allow and that begins with a sentence, or not long before."""
    latest = min(unit.start, request.duration_seconds - request.min_length)
    rough = max(math.floor(latest / _GRID_SECONDS) * _GRID_SECONDS, 0.0)
    longest = min(request.max_length, request.min_length + _NEAR_SECONDS)
    parts: list[Unit | Word] = [*units, *words]
    starts = [rough, *_between(latest - _NEAR_SECONDS, latest, [each.start for each in parts])]
    ends = list(_between(rough, latest + longest, [each.end for each in parts]))
    sought = [
        (start, end)
        for start in starts
        for end in (start + request.min_length, *ends)
        if request.min_length <= end - start <= request.max_length and end <= request.duration_seconds
    ]
    cuts = {time: _cut(time, units) + _cut(time, words) for pair in sought for time in pair}

    def cost(pair: Times) -> tuple[bool, int, float]:
        start, end = pair
        return end < unit.end, cuts[start] + cuts[end], latest - start + end - start

    return min(sought, key=cost, default=(0.0, request.min_length))


def _between(first: float, last: float, times: Iterable[float]) -> list[float]:
    return sorted({time for time in times if max(first, 0.0) <= time <= last})


def _cut(time: float, parts: Sequence[Unit | Word]) -> int:
    return sum(part.start < time < part.end for part in parts)
