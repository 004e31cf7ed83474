"""The rules for the times of a moment that is added or edited by hand, and the messages that name the broken one."""

import math

MAX_MOMENT_SECONDS = 120

# What a user reads, types and computes is rounded: an end of 20.1 is the end of a video of 20.0999 seconds.
_TOLERANCE_SECONDS = 0.005
_NOISE_SECONDS = 1e-6  # of differences of floats
_LONGEST_SECONDS = 1e9  # that is rounded; more has no decimals that matter


def broken_times(start: float, end: float, duration: float | None) -> str:
    """Return the first rule that these times break, or ''. A duration of None limits nothing."""
    if start < 0:
        return "start_time must be >= 0"
    if duration is not None and fit_end(start, end, duration) > duration:
        return f"end_time must be <= video duration ({_round_down(duration)} seconds)"
    if end <= start:
        return "end_time must be greater than start_time"
    if end - start > MAX_MOMENT_SECONDS + _NOISE_SECONDS:
        length = _round_up(end - start)
        return f"Moment duration ({length} seconds) exceeds maximum of {MAX_MOMENT_SECONDS} seconds (2 minutes)"
    return ""


def describe_overlap(title: str | None, start: float, end: float) -> str:
    """Return the message for a moment that is in the way; new ones may touch the times that it names."""
    return f"Moment overlaps with existing moment '{title}' ({_round_down(start)}s - {_round_up(end)}s)"


def fit_end(start: float, end: float, duration: float | None) -> float:
    """Return the end of a moment as it is stored: not after the end of the video where rounding alone put it there."""
    if duration is not None and start < duration < end <= duration + _TOLERANCE_SECONDS:
        return duration
    return end


def fit_beside(start: float, end: float, other_start: float, other_end: float) -> tuple[float, float]:
    """Return times that touch another moment where they overlap it by rounding alone."""
    if start < other_end < min(end, start + _TOLERANCE_SECONDS):
        return other_end, end
    if max(start, end - _TOLERANCE_SECONDS) < other_start < end:
        return start, other_start
    return start, end


def _round_down(seconds: float) -> str:
    """Return the greatest time of few decimals that is accepted where this is the last one."""
    if seconds > _LONGEST_SECONDS:
        return f"{seconds:.1f}"
    for decimals in (1, 2):
        rounded = math.floor((seconds + _TOLERANCE_SECONDS) * 10**decimals + _NOISE_SECONDS) / 10**decimals
        if rounded > 0 or seconds <= 0:
            return f"{rounded:.{decimals}f}"
    return f"{max(seconds, 0):g}"


def _round_up(seconds: float) -> str:
    if seconds > _LONGEST_SECONDS:
        return f"{seconds:.1f}"
    return f"{math.ceil((seconds - _TOLERANCE_SECONDS) * 10 - _NOISE_SECONDS) / 10:.1f}"
