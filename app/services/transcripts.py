"""Transcripts as captions: SubRip, WebVTT and plain text."""

import asyncio
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heappush, heapreplace
from itertools import groupby, pairwise
from typing import Any

from app.core.errors import TranscriptNotFound, VideoNotFound
from app.database import Database
from app.repositories import TranscriptRepository
from app.repositories.transcripts import TranscriptVersion

# A time behind this is none.
_LONGEST_SECONDS = 1e9
# How long a cue is shown whose end is not behind its start, where there is room for that.
_READABLE_MS = 1000
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


class CaptionFormat(StrEnum):
    """The formats, each by its file name extension."""

    SRT = "srt"
    VTT = "vtt"
    TXT = "txt"


@dataclass(frozen=True, slots=True)
class CaptionCue:
    """One line of text and when it is shown, in milliseconds."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Captions:
    """A transcript in one of the formats, in UTF-8."""

    key: TranscriptVersion
    body: bytes


async def read_captions(database: Database, identifier: str, form: CaptionFormat) -> Captions:
    """Return the captions of a video. Raises `VideoNotFound` and `TranscriptNotFound`."""
    async with database.connect() as conn:
        found = await TranscriptRepository(conn).read_segments_json(identifier)
    if found is None:
        raise VideoNotFound
    key, segments = found
    if segments is None:
        raise TranscriptNotFound
    return Captions(key, await asyncio.to_thread(_render, segments, form))


def _render(segments: str, form: CaptionFormat) -> bytes:
    # Integers as floats: PostgreSQL takes integers of any length, and Python refuses to read them.
    return _WRITERS[form](make_cues(json.loads(segments, parse_int=float))).encode()


def make_cues(segments: Any) -> list[CaptionCue]:
    """Return a cue for each segment that has a text, in their order.

    Each ends behind its start and not behind the start of the next. Times that are right already stay as they are;
    where they run backwards, as at the borders of what was transcribed in pieces, the starts are moved by as little in
    all as can be, and cues that then start together share the time.
    """
    segments_read = list(_parse_segments(segments if isinstance(segments, list) else [segments]))
    starts = _isotonic_starts([start for start, _, _ in segments_read])
    times = _share_times(starts, [end for _, end, _ in segments_read])
    return [CaptionCue(start, end, text) for (start, end), (_, _, text) in zip(times, segments_read, strict=True)]


def write_srt(cues: Sequence[CaptionCue]) -> str:
    return "\n".join(f"{number}\n{_format_cue_times(cue, ',')}\n{cue.text}\n" for number, cue in enumerate(cues, 1))


def write_vtt(cues: Sequence[CaptionCue]) -> str:
    blocks = (f"\n{_format_cue_times(cue, '.')}\n{html.escape(cue.text, quote=False)}\n" for cue in cues)
    return "WEBVTT\n" + "".join(blocks)


def write_text(cues: Sequence[CaptionCue]) -> str:
    return "".join(f"{cue.text}\n" for cue in cues)


_WRITERS: Mapping[CaptionFormat, Callable[[Sequence[CaptionCue]], str]] = {
    CaptionFormat.SRT: write_srt,
    CaptionFormat.VTT: write_vtt,
    CaptionFormat.TXT: write_text,
}


def _parse_segments(segments: Sequence[Any]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and text; a time that cannot be read is the last one that could be."""
    last = 0
    for segment in segments:
        text = _join_lines(segment.get("text")) if isinstance(segment, dict) else ""
        if text:
            start = _milliseconds(segment.get("start"), last)
            last = _milliseconds(segment.get("end"), start)
            yield start, last, text


def _join_lines(text: Any) -> str:
    return " ".join(_CONTROLS.sub(" ", text).split()) if isinstance(text, str) else ""


def _milliseconds(seconds: Any, unknown: int) -> int:
    if not isinstance(seconds, int | float) or not seconds < _LONGEST_SECONDS:
        return unknown
    return round(max(0, seconds) * 1000)


def _isotonic_starts(starts: Sequence[int]) -> list[int]:
    """Return the non-decreasing numbers with the least sum of distances to `starts`.

    Isotonic regression in the L1 norm, with a heap of the starts so far.
    """
    largest: list[int] = []
    moved: list[int] = []
    for start in starts:
        heappush(largest, -start)
        if -largest[0] > start:
            heapreplace(largest, -start)
        moved.append(-largest[0])
    for place in range(len(moved) - 2, -1, -1):
        moved[place] = min(moved[place], moved[place + 1])
    return moved


def _share_times(starts: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each cue: those with the same start share the time up to where the next one starts."""
    groups = [
        (start, [ends[place] for place in places]) for start, places in groupby(range(len(starts)), starts.__getitem__)
    ]
    times: list[tuple[int, int]] = []
    free = 0
    for place, (start, group) in enumerate(groups):
        start, count = max(start, free), len(group)
        stop = max(group) if max(group) > start else start + count * _READABLE_MS
        if place + 1 < len(groups):
            stop = min(stop, groups[place + 1][0])
        free = max(stop, start + count)
        times.extend(pairwise(start + (free - start) * part // count for part in range(count + 1)))
    return times


def _format_cue_times(cue: CaptionCue, comma: str) -> str:
    return f"{_format_timestamp(cue.start, comma)} --> {_format_timestamp(cue.end, comma)}"


def _format_timestamp(milliseconds: int, comma: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{comma}{rest:03}"
