"""The clip of a legacy moment: where it lies, and which part of the video it shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from app.importer.reading import read_text
from app.importer.rows import LegacyMoment
from app.models.rows import CLIP_PADDING_SECONDS

_STORAGE_HOSTS = ("storage.googleapis.com", "storage.cloud.google.com")


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a video in seconds. One that a refinement recorded is a fact, the others are worked out."""

    start: float
    end: float
    is_recorded: bool = False


def clip_name(video: str, legacy_id: str) -> str:
    """Return the name of a clip's file in `moment_clips/`."""
    return f"{video}_{legacy_id}_clip.mp4"


def remote_clip_url(moment: LegacyMoment, bucket: str | None) -> str | None:
    """Return where the row says its clip lies, or None where it says nothing or nobody knows the bucket."""
    named_bucket, path = _split_storage_url(moment.clip_url) if moment.clip_url else (None, None)
    path, bucket = moment.clip_path or path, bucket or named_bucket
    if path and bucket:
        return read_text(f"gs://{bucket}/{path}")
    return moment.clip_url.partition("?")[0] if moment.clip_url else None


def clip_window(
    moment: LegacyMoment,
    recorded: Sequence[tuple[float, float]],
    word_times: Sequence[tuple[float, float]],
    duration: float | None,
) -> Window:
    """Return which part of the video a moment's clip shows: 30 s of padding on both sides, drawn in to word borders.

    What a refinement of the moment recorded comes first.
    """
    if recorded:
        start, end = recorded[0]
        return Window(start, min(end, duration) if duration is not None and duration > start else end, True)
    plain = (
        min(max(0.0, moment.start_time - CLIP_PADDING_SECONDS), moment.start_time),
        moment.end_time + CLIP_PADDING_SECONDS,
    )
    start, end = _draw_in(plain, word_times)
    start, end = (start, end) if start < end else plain
    if duration is not None and duration > start:
        end = min(end, duration)
    return Window(start, end)


def read_word_times(words: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return start and end of each word that has both."""
    times = [(word.get("start"), word.get("end")) for word in words]
    return [
        (float(start), float(end))
        for start, end in times
        if isinstance(start, int | float) and isinstance(end, int | float)
    ]


def _draw_in(plain: tuple[float, float], word_times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the start of the first word in the window and the end of the first word that ends behind it."""
    if not word_times:
        return plain
    start = next((start for start, _ in word_times if start >= plain[0]), word_times[0][0])
    end = next((end for _, end in word_times if end >= plain[1]), word_times[-1][1])
    return start, end


def _split_storage_url(url: str) -> tuple[str | None, str | None]:
    """Return bucket and path of a Google Cloud Storage URL, in either of its two forms, or of a `gs://` one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, None
    host, path = parts.hostname or "", unquote(parts.path.removeprefix("/"))
    if parts.scheme == "gs":
        return host or None, path or None
    if host in _STORAGE_HOSTS:
        bucket, _, path = path.partition("/")
        return bucket or None, path or None
    for storage in _STORAGE_HOSTS:
        if host.endswith(f".{storage}"):
            return host.removesuffix(f".{storage}"), path or None
    return None, None
