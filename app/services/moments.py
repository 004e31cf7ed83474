"""Adding and editing moments by hand, and the rules for their times."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

from app.core.errors import InvalidMoment, MomentNotFound, VideoNotFound, require_found
from app.core.text import clean_line
from app.database import Connection
from app.models import Moment, Video
from app.models.rows import find_root_moment
from app.repositories import MomentRepository, VideoRepository
from app.repositories.moments import MomentInsertion, MomentWithConfig, make_random_moment_identifier

MAX_MOMENT_SECONDS = 120
# Users read and type rounded times: 20.1 is the end of a video of 20.0999 seconds.
_TOLERANCE_SECONDS = 0.005
_NOISE_SECONDS = 1e-6  # float error of differences
_LONGEST_SECONDS = 1e9  # larger times are not rounded


class MomentEdit(TypedDict, total=False):
    """The changes of a moment; times in seconds. A score needs its scoring model, and None clears both."""

    title: str
    start_time: float
    end_time: float
    score: int | None
    scoring_model: str | None


async def add_moment(conn: Connection, video_identifier: str, start: float, end: float, title: str) -> MomentWithConfig:
    title = clean_line(title)
    title_problem = _find_empty_title_problem(title)
    if title_problem or describe_time_problem(start, end, None):
        videos = VideoRepository(conn)
        if await videos.get_by_identifier(video_identifier) is None:
            raise VideoNotFound
        last = await videos.get_end_seconds(video_identifier)
        raise InvalidMoment(title_problem or describe_time_problem(start, end, last))
    while True:
        insertion = await MomentRepository(conn).insert_if_free(
            video_identifier, make_random_moment_identifier(), start, end, title
        )
        if insertion is None:
            raise VideoNotFound
        if insertion.identifier is not None:
            return MomentWithConfig(insertion.identifier, start, end, title, False, None, None, None, None, None)
        fitted = _fit_times_to_conflict(start, end, insertion)
        if fitted == (start, end):
            raise InvalidMoment(_describe_insertion_conflict(start, end, insertion))
        start, end = fitted


def _describe_insertion_conflict(start: float, end: float, insertion: MomentInsertion) -> str:
    return describe_time_problem(start, end, insertion.video_duration) or describe_moment_overlap(
        insertion.other_title, insertion.other_start or 0.0, insertion.other_end or 0.0
    )


def _fit_times_to_conflict(start: float, end: float, insertion: MomentInsertion) -> tuple[float, float]:
    """Return the times of a moment that was not inserted, moved where only rounding is in the way."""
    end = clamp_rounded_end(start, end, insertion.video_duration)
    if insertion.other_start is None or insertion.other_end is None:
        return start, end
    return snap_to_neighbour(start, end, insertion.other_start, insertion.other_end)


async def edit_moment(
    conn: Connection, video_identifier: str, identifier: str, **edit: Unpack[MomentEdit]
) -> MomentWithConfig:
    """Change a moment in the caller's transaction and return it. Raises `InvalidMoment` for a broken rule."""
    if "title" in edit:
        edit["title"] = clean_line(edit["title"])
    video, moment = await lock_video_and_moment(conn, video_identifier, identifier)
    if moment is None:
        raise MomentNotFound
    changes = _make_changed_moment_columns(moment, edit)
    if "title" in changes and (problem := _find_empty_title_problem(changes["title"])):
        raise InvalidMoment(problem)
    if "start_time" in changes or "end_time" in changes:
        changes |= await _fit_edited_times(conn, video, moment, changes)
    if changes:
        await MomentRepository(conn).update(moment.id, **changes)
    moments = (await MomentRepository(conn).list_moments_with_configs([video_identifier]))[video_identifier]
    return next(each for each in replace_parents_by_roots(moments) if each.identifier == identifier)


def replace_parents_by_roots(moments: list[MomentWithConfig]) -> list[MomentWithConfig]:
    """Return the moments, each refined one with the root of its tree as parent, under which clients group them."""
    refined = {moment.identifier for moment in moments if moment.parent_identifier is not None}
    if refined.isdisjoint(moment.parent_identifier for moment in moments):
        return moments
    parents = {moment.identifier: moment.parent_identifier if moment.is_refined else None for moment in moments}
    return [_replace_parent_by_root(moment, parents) for moment in moments]


def _replace_parent_by_root(moment: MomentWithConfig, parents: Mapping[str, str | None]) -> MomentWithConfig:
    if moment.parent_identifier is None or (root := find_root_moment(moment.parent_identifier, parents)) is None:
        return moment
    return moment if root == moment.parent_identifier else moment._replace(parent_identifier=root)


async def lock_video_and_moment(
    conn: Connection, video_identifier: str, identifier: str
) -> tuple[Video, Moment | None]:
    """Lock a video's row; return the video and its moment, or None for an unknown moment. Raises `VideoNotFound`."""
    video = require_found(await VideoRepository(conn).lock_video(video_identifier), VideoNotFound)
    moment = await MomentRepository(conn).get_by_identifier(identifier)
    return video, moment if moment is not None and moment.video_id == video.id else None


def _make_changed_moment_columns(moment: Moment, edit: MomentEdit) -> dict[str, Any]:
    """Return the values of an edit that differ from the moment's by column, with the time of a new score."""
    wanted: dict[str, Any] = {**edit}
    if "score" in wanted:
        wanted.setdefault("scoring_model", None)
    changes = {name: value for name, value in wanted.items() if value != getattr(moment, name)}
    if "score" in changes or "scoring_model" in changes:
        changes["scored_at"] = None if wanted["score"] is None else datetime.now(UTC).replace(tzinfo=None)
    return changes


async def _fit_edited_times(
    conn: Connection, video: Video, moment: Moment, changes: Mapping[str, Any]
) -> dict[str, float]:
    """Return the changed times of a moment, moved where only rounding is in the way. Raises `InvalidMoment`."""
    start, end = changes.get("start_time", moment.start_time), changes.get("end_time", moment.end_time)
    last = await VideoRepository(conn).get_end_seconds(video.identifier)
    while True:
        if problem := describe_time_problem(start, end, last):
            raise InvalidMoment(problem)
        end = clamp_rounded_end(start, end, last)
        other = await MomentRepository(conn).find_overlapping_moment(video.id, start, end, excluded_moment_id=moment.id)
        if other is None:
            return {"start_time": start, "end_time": end}
        fitted = snap_to_neighbour(start, end, other.start_time, other.end_time)
        if fitted == (start, end):
            raise InvalidMoment(describe_moment_overlap(other.title, other.start_time, other.end_time))
        start, end = fitted


def _find_empty_title_problem(title: str) -> str:
    return "" if title.strip() else "title must be a non-empty string"


def describe_time_problem(start: float, end: float, duration: float | None) -> str:
    """Return which rule the times of a moment break, as a sentence; '' if none. A duration of None is no limit."""
    if start < 0:
        return "start_time must be >= 0"
    if duration is not None and clamp_rounded_end(start, end, duration) > duration:
        return f"end_time must be <= video duration ({_format_seconds_rounded_down(duration)} seconds)"
    if end <= start:
        return "end_time must be greater than start_time"
    if end - start > MAX_MOMENT_SECONDS + _NOISE_SECONDS:
        length = _format_seconds_rounded_up(end - start)
        return f"Moment duration ({length} seconds) exceeds maximum of {MAX_MOMENT_SECONDS} seconds (2 minutes)"
    return ""


def describe_moment_overlap(other_title: str | None, other_start: float, other_end: float) -> str:
    times = f"{_format_seconds_rounded_down(other_start)}s - {_format_seconds_rounded_up(other_end)}s"
    return f"Moment overlaps with existing moment '{other_title}' ({times})"


def clamp_rounded_end(start: float, end: float, duration: float | None) -> float:
    """Return the end of a moment; the end of the video if it is at most 5 ms after that."""
    if duration is not None and start < duration < end <= duration + _TOLERANCE_SECONDS:
        return duration
    return end


def snap_to_neighbour(start: float, end: float, other_start: float, other_end: float) -> tuple[float, float]:
    """Return start and end of a moment; if it overlaps another one by at most 5 ms, moved to touch that."""
    if start < other_end < min(end, start + _TOLERANCE_SECONDS):
        return other_end, end
    if max(start, end - _TOLERANCE_SECONDS) < other_start < end:
        return start, other_start
    return start, end


def _format_seconds_rounded_down(seconds: float) -> str:
    if seconds > _LONGEST_SECONDS:
        return f"{seconds:.1f}"
    for decimals in (1, 2):
        rounded = math.floor((seconds + _TOLERANCE_SECONDS) * 10**decimals + _NOISE_SECONDS) / 10**decimals
        if rounded > 0 or seconds <= 0:
            return f"{rounded:.{decimals}f}"
    return f"{max(seconds, 0):g}"


def _format_seconds_rounded_up(seconds: float) -> str:
    if seconds > _LONGEST_SECONDS:
        return f"{seconds:.1f}"
    return f"{math.ceil((seconds - _TOLERANCE_SECONDS) * 10 - _NOISE_SECONDS) / 10:.1f}"
