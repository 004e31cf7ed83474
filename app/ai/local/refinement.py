"""A moment's exact times: from the beginning of a sentence to the end of one, with all that belongs to it."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from app.ai.local.units import Unit
from app.ai.local.vectors import Array

_NEAR_SECONDS = (2.0, 10.0)  # the least and the most by which a time is moved
_PART = 0.34  # of the moment's length is the usual most
_LEAST = 0.8  # of the moment's length stays
_DISTANCE = 0.015  # what a second costs by which a time is moved
_INSIDE = 0.35  # how much the sentences that are in it count for what is usual, beside all of the window
_ROUGH = 1e-6


def refine_times(units: Sequence[Unit], vectors: Array, start: float, end: float) -> tuple[float, float]:
    """Return the best times near those of a moment, in the units' seconds; there is at least one unit.

    Where no sentences near its times are long enough for it, the moment stays as it is.
    A sentence belongs to the moment if it is nearer to the middle of what is in it now than usual in this window.
    """
    belonging = _belonging(units, vectors, start, end)
    totals = np.concatenate(([0.0], np.cumsum(belonging)))
    near = min(max((end - start) * _PART, _NEAR_SECONDS[0]), _NEAR_SECONDS[1])
    firsts = _nearest([unit.start for unit in units], start, near)
    lasts = _nearest([unit.end for unit in units], end, near)
    least = (end - start) * _LEAST
    pairs = [pair for pair in product(firsts, lasts) if units[pair[1]].end - units[pair[0]].start >= least]
    if not pairs:
        return start, end

    def worth(pair: tuple[int, int]) -> float:
        first, last = pair
        moved = abs(units[first].start - start) + abs(units[last].end - end)
        return float(totals[last + 1] - totals[first]) - _DISTANCE * moved

    first, last = max(pairs, key=worth)
    return units[first].start, units[last].end


def _belonging(units: Sequence[Unit], vectors: Array, start: float, end: float) -> Array:
    """Return for each sentence how much it belongs to the moment, more than 0, or does not, less than 0."""
    weights = np.array([unit.weight for unit in units], np.float32)
    weights /= weights.mean()
    inside = np.array([max(min(unit.end, end) - max(unit.start, start), 0.0) for unit in units], np.float32) + _ROUGH
    middle = (vectors * (weights * inside)[:, None]).sum(axis=0)
    nearness = vectors @ middle / max(float(np.linalg.norm(middle)), _ROUGH)
    usual = _INSIDE * np.average(nearness, weights=inside) + (1 - _INSIDE) * nearness.mean()
    return np.asarray((nearness - usual) * weights)


def _nearest(times: Sequence[float], time: float, near: float) -> list[int]:
    """Return the places of the times near to another one, or of the nearest that may be taken where none is near."""
    places = sorted(range(len(times)), key=lambda place: (abs(times[place] - time), place))
    nearer = [place for place in places if abs(times[place] - time) <= near]
    return nearer or [place for place in places[:1] if abs(times[place] - time) <= _NEAR_SECONDS[1]]
