"""Adding moments by hand."""

from app.core.errors import InvalidMoment, VideoNotFound
from app.database import Connection
from app.repositories import MomentRepository, VideoRepository
from app.repositories.moments import MomentAttempt, new_identifier
from app.repositories.views import ShownMoment

MAX_MOMENT_SECONDS = 120


async def add_moment(conn: Connection, identifier: str, start: float, end: float, title: str) -> ShownMoment:
    """Add a moment by hand; times in seconds. Raises `VideoNotFound`, and `InvalidMoment` for the first broken rule."""
    if _broken_rule(start, end, title, duration=None):
        duration = await _get_duration(conn, identifier)
        raise InvalidMoment(_broken_rule(start, end, title, duration))
    attempt = await MomentRepository(conn).create_if_free(identifier, new_identifier(), start, end, title)
    if attempt is None:
        raise VideoNotFound
    if attempt.identifier is None:
        raise InvalidMoment(_broken_rule(start, end, title, attempt.video_duration) or _overlap(attempt))
    return ShownMoment(attempt.identifier, start, end, title, False, None, None, None)


def _broken_rule(start: float, end: float, title: str, duration: float | None) -> str:
    """Return the first rule that a new moment breaks, or ''. Without a known duration the end is not limited by it."""
    if not title.strip():
        return "title must be a non-empty string"
    if start < 0:
        return "start_time must be >= 0"
    if duration is not None and end > duration:
        return f"end_time must be <= video duration ({duration:.1f} seconds)"
    if end <= start:
        return "end_time must be greater than start_time"
    if end - start > MAX_MOMENT_SECONDS:
        return (
            f"Moment duration ({end - start:.1f} seconds) exceeds maximum of {MAX_MOMENT_SECONDS} seconds (2 minutes)"
        )
    return ""


def _overlap(attempt: MomentAttempt) -> str:
    return (
        f"Moment overlaps with existing moment '{attempt.other_title}' "
        f"({attempt.other_start:.1f}s - {attempt.other_end:.1f}s)"
    )


async def _get_duration(conn: Connection, identifier: str) -> float | None:
    video = await VideoRepository(conn).get_by_identifier(identifier)
    if video is None:
        raise VideoNotFound
    return video.duration_seconds
