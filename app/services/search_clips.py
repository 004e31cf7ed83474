"""Moments and clips of what a search has found: the sentences around each span, cut out of its video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

from app.core.errors import InvalidMoment, VideoMomentsError, VideoNotFound
from app.core.text import clean_line
from app.database import Connection, Database
from app.models import Moment, Video
from app.models.rows import find_root_moment
from app.models.runs import RunRequest
from app.repositories import MomentRepository, VideoRepository
from app.repositories.search import SearchRepository
from app.search.passages import find_sentences
from app.services.moments import MAX_MOMENT_SECONDS, add_moment
from app.services.run_requests import RunStarter

_MAX_TITLE_LENGTH = 80  # characters, of a title that is what is said
_MIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class FoundSpan:
    """A span of a video, in seconds, as a hit of a search has it; without a title it gets the words that are said."""

    video: str
    start: float
    end: float
    title: str = ""


@dataclass(frozen=True, slots=True)
class SpanMoment:
    """The moment at a span, in seconds of its video: a new one, or one that was there."""

    video: str
    identifier: str
    start: float
    end: float
    title: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class ClipRun:
    """The run that cuts the clips of a video's moments, or why there is none."""

    video: str
    identifier: str | None
    problem: str | None


async def make_clips(
    database: Database, starter: RunStarter, spans: Sequence[FoundSpan]
) -> tuple[list[SpanMoment], list[ClipRun]]:
    """Make a moment of each span, in their order, and start a run for each video that cuts those that have no clip.

    Raises `VideoNotFound` or `InvalidMoment` before anything is stored. Spans in one moment share it.
    """
    async with database.connect() as conn, conn.transaction():
        in_order = sorted({span.video for span in spans})  # two requests with other orders could deadlock
        videos = {name: await VideoRepository(conn).lock_video(name) for name in in_order}
        moments = [await _get_or_add_moment(conn, videos[span.video], span) for span in spans]
    distinct: dict[str, SpanMoment] = {}
    for moment in moments:
        distinct.setdefault(moment.identifier, moment)
    names = dict.fromkeys(moment.video for moment in moments)
    return list(distinct.values()), [await _start_run(starter, name) for name in names]


async def _get_or_add_moment(conn: Connection, video: Video | None, span: FoundSpan) -> SpanMoment:
    if video is None:
        raise VideoNotFound(span.video)
    if span.end < span.start or span.start < 0:
        raise InvalidMoment(f"A span of {span.video} must not end before it begins, nor begin before the video")
    moments = await MomentRepository(conn).list_by_video(video.id)
    containing = [moment for moment in moments if moment.start_time <= span.start < moment.end_time]
    if containing:
        return _make_existing(video, min(containing, key=lambda moment: (moment.start_time, moment.id)), moments)
    start, end, title = await _expand_to_sentences(conn, video, span)
    preceding, following = _find_neighbours(moments, span.start)
    last = await VideoRepository(conn).get_end_seconds(video.identifier)
    low = preceding.end_time if preceding else 0.0
    high = min(following.start_time if following else math.inf, math.inf if last is None else last)
    if high - low < _MIN_SECONDS:
        if following:
            return _make_existing(video, following, moments)
        if preceding and start < low:
            return _make_existing(video, preceding, moments)
    if start < high:  # otherwise it is behind the end of the video, which add_moment refuses
        start, end = _fit_span(span, start, end, low, high)
    added = await add_moment(conn, video.identifier, start, end, span.title or title)
    return SpanMoment(video.identifier, added.identifier, added.start_time, added.end_time, added.title, is_new=True)


def _make_existing(video: Video, moment: Moment, moments: Sequence[Moment]) -> SpanMoment:
    """Return a moment that was there as that of a span, or the original from which it is refined."""
    by_id = {each.id: each for each in moments}
    root = find_root_moment(moment.id, {each.id: each.parent_id for each in moments})
    original = moment if root is None else by_id.get(root, moment)
    return SpanMoment(
        video.identifier, original.identifier, original.start_time, original.end_time, original.title, is_new=False
    )


def _find_neighbours(moments: Sequence[Moment], time: float) -> tuple[Moment | None, Moment | None]:
    """Return the last moment that ends before a time in no moment, and the first that starts after it."""
    before = [moment for moment in moments if moment.end_time <= time]
    after = [moment for moment in moments if moment.start_time > time]
    return (
        max(before, key=lambda moment: moment.end_time, default=None),
        min(after, key=lambda moment: moment.start_time, default=None),
    )


async def _expand_to_sentences(conn: Connection, video: Video, span: FoundSpan) -> tuple[float, float, str]:
    """Return the times of the sentences around a span, and what is said in them; its own times where none is known."""
    spoken = await SearchRepository(conn).get_spoken_words(video.id, round(span.start * 1000))
    start, end, title = span.start, span.end, span.title or video.identifier
    if spoken is not None:
        said = find_sentences(spoken.text, spoken.word_starts, spoken.word_ends, span.start, span.end)
        start, end = min(said.start, span.start), max(said.end, span.end)
        title = shorten(clean_line(said.text), _MAX_TITLE_LENGTH, placeholder="\u2026") or title
    return start, end if end > span.start else span.start + _MIN_SECONDS, title


def _fit_span(span: FoundSpan, start: float, end: float, low: float, high: float) -> tuple[float, float]:
    """Return the free part of the sentences around a span, from `low` to `high`, and no longer than a moment may be.

    It has the start of the span and as much of the rest as possible, and at least 1 s where that is free.
    """
    span_end = min(max(span.end, span.start + _MIN_SECONDS), high)
    start = max(start, low, min(span.start, span_end - MAX_MOMENT_SECONDS))
    end = min(end, high, start + MAX_MOMENT_SECONDS)
    if end - start < _MIN_SECONDS:
        end = min(start + _MIN_SECONDS, high)
        start = max(end - _MIN_SECONDS, low)
    return start, end


async def _start_run(starter: RunStarter, video: str) -> ClipRun:
    try:
        identifier = await starter.start_clip_extraction(video, RunRequest(override_existing_clips=False))
    except VideoMomentsError as error:
        return ClipRun(video, None, str(error))
    return ClipRun(video, identifier, None)
