"""Real talks with moments that were found in them: JSON files in a folder that is given."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.database import Connection
from app.repositories import TranscriptRepository, VideoRepository


@dataclass(frozen=True)
class TitledMoment:
    """A moment of a talk with its title; times in seconds."""

    talk: str
    title: str
    start: float
    end: float


@dataclass(frozen=True)
class Talk:
    """A talk: words and segments as `(text, start, end)` with times in seconds, and moments with titles."""

    name: str
    words: Sequence[tuple[str, float, float]]
    segments: Sequence[tuple[str, float, float]]
    moments: Sequence[TitledMoment]


def read_talks(folder: Path) -> list[Talk]:
    """Read all talks of a folder: `{"words": […], "segments": […], "runs": [{"moments": […]}]}`.

    A word and a segment are `[text, start, end]`, a moment is `{"title", "start", "end"}`, all times in seconds. Exits
    with one sentence where the folder has none.
    """
    talks = [_read_talk(path) for path in sorted(folder.glob("*.json"))]
    if not talks:
        raise SystemExit(f"There is no talk in {folder}: it needs JSON files, see tests/quality/talks.py")
    return talks


def _read_talk(path: Path) -> Talk:
    document: Mapping[str, Any] = json.loads(path.read_bytes())
    moments = [moment for run in document["runs"] for moment in run["moments"] if moment.get("title")]
    return Talk(
        path.stem,
        [(word, start, end) for word, start, end in document["words"]],
        [(text, start, end) for text, start, end in document["segments"]],
        [TitledMoment(path.stem, each["title"], each["start"], each["end"]) for each in moments],
    )


async def store_talk(conn: Connection, talk: Talk) -> None:
    video = await VideoRepository(conn).create(
        identifier=talk.name,
        title="-",
        cloud_url=f"file:///library/{talk.name}.mp4",
        duration_seconds=talk.words[-1][2],
    )
    await TranscriptRepository(conn).create(
        video_id=video.id,
        full_text=" ".join(word for word, _, _ in talk.words),
        word_timestamps=[{"word": word, "start": start, "end": end} for word, start, end in talk.words],
        segment_timestamps=[{"text": text, "start": start, "end": end} for text, start, end in talk.segments],
    )
