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

from app.core.errors import TranscriptNotFound, VideoNotFound, require_found
from app.database import Database
from app.repositories import TranscriptRepository
from app.repositories.transcripts import TranscriptVersion

# Larger values are not times.
_LONGEST_SECONDS = 1e9
# Length of a cue whose end is not after its start, if the next cue leaves room.
_READABLE_MS = 1000
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


class CaptionFormat(StrEnum):
    """Caption formats; the value is the file name extension."""

    SRT = "srt"
    VTT = "vtt"
    TXT = "txt"


@dataclass(frozen=True, slots=True)
class CaptionCue:
    """A caption text with its start and end in milliseconds."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Captions:
    """The captions of a version of a transcript, encoded in UTF-8."""

    version: TranscriptVersion
    body: bytes


async def render_captions(database: Database, video_identifier: str, caption_format: CaptionFormat) -> Captions:
    async with database.connect() as conn:
        found = require_found(await TranscriptRepository(conn).read_segments_json(video_identifier), VideoNotFound)
    version, segments = found
    if segments is None:
        raise TranscriptNotFound
    return Captions(version, await asyncio.to_thread(_render_captions_of_segments, segments, caption_format))


def _render_captions_of_segments(segments_json: str, caption_format: CaptionFormat) -> bytes:
    # PostgreSQL stores integers of any length, which Python's int() rejects.
    return _FORMAT_WRITERS[caption_format](make_caption_cues(json.loads(segments_json, parse_int=float))).encode()


def make_caption_cues(segments: Any) -> list[CaptionCue]:
    """Return a cue for each transcript segment with a text; each ends after its start and not after the next start.

    Where times run backwards, as at the borders of transcribed pieces, the starts are moved by the least total
    distance, and cues with the same start share the time until the next one.
    """
    parsed = list(_parse_caption_segments(segments if isinstance(segments, list) else [segments]))
    starts = _make_starts_ascending([start for start, _, _ in parsed])
    times = _assign_cue_times(starts, [end for _, end, _ in parsed])
    return [CaptionCue(start, end, text) for (start, end), (_, _, text) in zip(times, parsed, strict=True)]


def format_cues_as_srt(cues: Sequence[CaptionCue]) -> str:
    return "\n".join(f"{number}\n{_format_cue_times(cue, ',')}\n{cue.text}\n" for number, cue in enumerate(cues, 1))


def format_cues_as_vtt(cues: Sequence[CaptionCue]) -> str:
    blocks = (f"\n{_format_cue_times(cue, '.')}\n{html.escape(cue.text, quote=False)}\n" for cue in cues)
    return "WEBVTT\n" + "".join(blocks)


def format_cues_as_text(cues: Sequence[CaptionCue]) -> str:
    return "".join(f"{cue.text}\n" for cue in cues)


_FORMAT_WRITERS: Mapping[CaptionFormat, Callable[[Sequence[CaptionCue]], str]] = {
    CaptionFormat.SRT: format_cues_as_srt,
    CaptionFormat.VTT: format_cues_as_vtt,
    CaptionFormat.TXT: format_cues_as_text,
}


def _parse_caption_segments(segments: Sequence[Any]) -> Iterator[tuple[int, int, str]]:
    """Yield start and end in milliseconds and the text. The last readable time replaces an unreadable one."""
    last = 0
    for segment in segments:
        text = _to_single_line_or_empty(segment.get("text")) if isinstance(segment, dict) else ""
        if text:
            start = _to_milliseconds(segment.get("start"), last)
            last = _to_milliseconds(segment.get("end"), start)
            yield start, last, text


def _to_single_line_or_empty(text: Any) -> str:
    return " ".join(_CONTROLS.sub(" ", text).split()) if isinstance(text, str) else ""


def _to_milliseconds(seconds: Any, fallback: int) -> int:
    if not isinstance(seconds, int | float) or not seconds < _LONGEST_SECONDS:
        return fallback
    return round(max(0, seconds) * 1000)


def _make_starts_ascending(starts: Sequence[int]) -> list[int]:
    """Return the non-decreasing numbers with the least total distance to `starts`: isotonic L1 regression."""
    largest: list[int] = []
    moved: list[int] = []
    for start in starts:
        heappush(largest, -start)
        if -largest[0] > start:
            heapreplace(largest, -start)
        moved.append(-largest[0])
    for index in range(len(moved) - 2, -1, -1):
        moved[index] = min(moved[index], moved[index + 1])
    return moved


def _assign_cue_times(starts: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each cue in milliseconds; cues with the same start share the time to the next start."""
    groups = [
        (start, [ends[index] for index in indexes])
        for start, indexes in groupby(range(len(starts)), starts.__getitem__)
    ]
    times: list[tuple[int, int]] = []
    free = 0
    for index, (start, group) in enumerate(groups):
        start, count = max(start, free), len(group)
        stop = max(group) if max(group) > start else start + count * _READABLE_MS
        if index + 1 < len(groups):
            stop = min(stop, groups[index + 1][0])
        free = max(stop, start + count)
        times.extend(pairwise(start + (free - start) * part // count for part in range(count + 1)))
    return times


def _format_cue_times(cue: CaptionCue, decimal_mark: str) -> str:
    return f"{_format_timestamp(cue.start, decimal_mark)} --> {_format_timestamp(cue.end, decimal_mark)}"


def _format_timestamp(milliseconds: int, decimal_mark: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_mark}{rest:03}"
