"""Adding and editing moments by hand."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

from app.core.errors import InvalidMoment, MomentNotFound, VideoNotFound
from app.core.text import clean_line
from app.database import Connection
from app.models import Moment, Video
from app.models.rows import find_root_moment
from app.repositories import MomentRepository, VideoRepository
from app.repositories.moments import MomentInsertion, MomentWithConfig, make_moment_identifier

MAX_MOMENT_SECONDS = 120
# Users read and type rounded times: 20.1 is the end of a video of 20.0999 seconds.
_TOLERANCE_SECONDS = 0.005
_NOISE_SECONDS = 1e-6  # float error of differences
_LONGEST_SECONDS = 1e9  # larger times are not rounded


class MomentEdit(TypedDict, total=False):
    """Editable fields of a moment; times in seconds. A score needs its model, and None clears both."""

    title: str
    start_time: float
    end_time: float
    score: int | None
    scoring_model: str | None


async def add_moment(conn: Connection, identifier: str, start: float, end: float, title: str) -> MomentWithConfig:
    """Add a moment by hand; times in seconds. Raises `VideoNotFound`, and `InvalidMoment` for the first broken rule."""
    title = clean_line(title)
    if _find_problem(start, end, title, duration=None):
        raise InvalidMoment(_find_problem(start, end, title, await _get_video_end(conn, identifier)))
    while True:
        attempt = await MomentRepository(conn).insert_if_free(identifier, make_moment_identifier(), start, end, title)
        if attempt is None:
            raise VideoNotFound
        if attempt.identifier is not None:
            return MomentWithConfig(attempt.identifier, start, end, title, False, None, None, None, None, None)
        fitted = _fit_to_insertion(start, end, attempt)
        if fitted == (start, end):
            raise InvalidMoment(_describe_rejection(start, end, attempt))
        start, end = fitted


def _describe_rejection(start: float, end: float, attempt: MomentInsertion) -> str:
    return find_time_problem(start, end, attempt.video_duration) or describe_overlap(
        attempt.other_title, attempt.other_start or 0.0, attempt.other_end or 0.0
    )


def _fit_to_insertion(start: float, end: float, attempt: MomentInsertion) -> tuple[float, float]:
    end = clamp_end(start, end, attempt.video_duration)
    if attempt.other_start is None or attempt.other_end is None:
        return start, end
    return snap_beside(start, end, attempt.other_start, attempt.other_end)


async def edit_moment(
    conn: Connection, video_identifier: str, identifier: str, **edit: Unpack[MomentEdit]
) -> MomentWithConfig:
    """Change a moment in the caller's transaction; unchanged fields are not validated.

    Raises `VideoNotFound`, `MomentNotFound`, and `InvalidMoment` for the first broken rule.
    """
    if "title" in edit:
        edit["title"] = clean_line(edit["title"])
    video, moment = await lock_video_and_moment(conn, video_identifier, identifier)
    if moment is None:
        raise MomentNotFound
    changes = _find_changes(moment, edit)
    if "title" in changes and (problem := _find_title_problem(changes["title"])):
        raise InvalidMoment(problem)
    if "start_time" in changes or "end_time" in changes:
        changes |= await _fit_times(conn, video, moment, changes)
    if changes:
        await MomentRepository(conn).update(moment.id, **changes)
    moments = (await MomentRepository(conn).list_moments_with_configs([video_identifier]))[video_identifier]
    return next(each for each in replace_parents_by_roots(moments) if each.identifier == identifier)


def replace_parents_by_roots(moments: list[MomentWithConfig]) -> list[MomentWithConfig]:
    """Return the moments with each refined moment's parent replaced by the root of its tree.

    Clients group refined moments under their root and would hide deeper ones.
    """
    refined = {moment.identifier for moment in moments if moment.parent_identifier is not None}
    if refined.isdisjoint(moment.parent_identifier for moment in moments):
        return moments
    parents = {moment.identifier: moment.parent_identifier if moment.is_refined else None for moment in moments}
    return [_show_under_original(moment, parents) for moment in moments]


def _show_under_original(moment: MomentWithConfig, parents: Mapping[str, str | None]) -> MomentWithConfig:
    if moment.parent_identifier is None or (root := find_root_moment(moment.parent_identifier, parents)) is None:
        return moment
    return moment if root == moment.parent_identifier else replace(moment, parent_identifier=root)


async def lock_video_and_moment(
    conn: Connection, video_identifier: str, identifier: str
) -> tuple[Video, Moment | None]:
    """Lock a video until the transaction ends; return it and its moment, None if that is not one of the video's.

    Raises `VideoNotFound`.
    """
    video = await VideoRepository(conn).lock_video(video_identifier)
    if video is None:
        raise VideoNotFound
    moment = await MomentRepository(conn).get_by_identifier(identifier)
    return video, moment if moment is not None and moment.video_id == video.id else None


def _find_changes(moment: Moment, edit: MomentEdit) -> dict[str, Any]:
    wanted: dict[str, Any] = {**edit}
    if "score" in wanted:
        wanted.setdefault("scoring_model", None)
    changes = {name: value for name, value in wanted.items() if value != getattr(moment, name)}
    if "score" in changes or "scoring_model" in changes:
        changes["scored_at"] = None if wanted["score"] is None else datetime.now(UTC).replace(tzinfo=None)
    return changes


async def _fit_times(conn: Connection, video: Video, moment: Moment, changes: Mapping[str, Any]) -> dict[str, float]:
    start, end = changes.get("start_time", moment.start_time), changes.get("end_time", moment.end_time)
    last = await VideoRepository(conn).get_end_seconds(video.identifier)
    while True:
        if problem := find_time_problem(start, end, last):
            raise InvalidMoment(problem)
        end = clamp_end(start, end, last)
        other = await MomentRepository(conn).find_overlapping_moment(video.id, start, end, excluded_moment_id=moment.id)
        if other is None:
            return {"start_time": start, "end_time": end}
        fitted = snap_beside(start, end, other.start_time, other.end_time)
        if fitted == (start, end):
            raise InvalidMoment(describe_overlap(other.title, other.start_time, other.end_time))
        start, end = fitted


def _find_problem(start: float, end: float, title: str, duration: float | None) -> str:
    return _find_title_problem(title) or find_time_problem(start, end, duration)


def _find_title_problem(title: str) -> str:
    return "" if title.strip() else "title must be a non-empty string"


async def _get_video_end(conn: Connection, identifier: str) -> float | None:
    videos = VideoRepository(conn)
    if await videos.get_by_identifier(identifier) is None:
        raise VideoNotFound
    return await videos.get_end_seconds(identifier)


def find_time_problem(start: float, end: float, duration: float | None) -> str:
    """Return the first rule that these times break, or ''. A duration of None is no limit."""
    if start < 0:
        return "start_time must be >= 0"
    if duration is not None and clamp_end(start, end, duration) > duration:
        return f"end_time must be <= video duration ({_round_down(duration)} seconds)"
    if end <= start:
        return "end_time must be greater than start_time"
    if end - start > MAX_MOMENT_SECONDS + _NOISE_SECONDS:
        length = _round_up(end - start)
        return f"Moment duration ({length} seconds) exceeds maximum of {MAX_MOMENT_SECONDS} seconds (2 minutes)"
    return ""


def describe_overlap(title: str | None, start: float, end: float) -> str:
    return f"Moment overlaps with existing moment '{title}' ({_round_down(start)}s - {_round_up(end)}s)"


def clamp_end(start: float, end: float, duration: float | None) -> float:
    """Return the end of a moment, reduced to the end of the video if only rounding exceeds it."""
    if duration is not None and start < duration < end <= duration + _TOLERANCE_SECONDS:
        return duration
    return end


def snap_beside(start: float, end: float, other_start: float, other_end: float) -> tuple[float, float]:
    """Return times that touch another moment instead of overlapping it by rounding."""
    if start < other_end < min(end, start + _TOLERANCE_SECONDS):
        return other_end, end
    if max(start, end - _TOLERANCE_SECONDS) < other_start < end:
        return start, other_start
    return start, end


def _round_down(seconds: float) -> str:
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
