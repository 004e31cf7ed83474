"""Rows of `videos` and of `library.video_files`, and how videos and their files are described to users."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.core.text import clean_line

# Transcripts may end a little after the video; a moment that ends later belongs to another file.
_END_TOLERANCE_SECONDS = 1.0


def display_title(identifier: str, title: str | None) -> str:
    """Return the stored title without invisible characters, or the identifier as words: `demo-talk` is "Demo Talk"."""
    return clean_line(title) if title else _replace_separators_with_spaces(clean_line(identifier)).title()


def make_title_from_file_name(stem: str) -> str:
    """Return the title for a file's name without extension; a name with spaces keeps its capitals."""
    words = _replace_separators_with_spaces(stem).split()
    if len(stem.split()) < 2:
        return " ".join(words).title()
    return " ".join(word if word != word.lower() else word[:1].upper() + word[1:] for word in words)


def _replace_separators_with_spaces(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def describe_early_end(playable_seconds: float | None, ends_early: bool, declared_seconds: float | None) -> str | None:
    """Return how much of a truncated file can be played; None for a complete one."""
    if not ends_early or playable_seconds is None:
        return None
    if declared_seconds is None:
        return f"The file ends early, in the middle of a packet: {playable_seconds:.1f} seconds can be played"
    return f"The file ends early: {playable_seconds:.1f} of {declared_seconds:.1f} seconds can be played"


def describe_moment_after_video_end(moment_end: float, video_seconds: float | None) -> str | None:
    """Return a sentence with both times; None where the moment ends in time, or the duration is unknown."""
    if video_seconds is None or moment_end <= video_seconds + _END_TOLERANCE_SECONDS:
        return None
    return f"The moment ends at {moment_end:.1f} seconds, after the end of the video at {video_seconds:.1f} seconds"


@dataclass(frozen=True, slots=True)
class Video:
    """A video of the library. All other rows belong to one."""

    id: int
    identifier: str
    source_url: str | None
    cloud_url: str
    title: str | None
    duration_seconds: float | None
    file_size_kb: int | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None
    created_at: datetime

    @property
    def is_audio_only(self) -> bool:
        return self.video_codec is None and self.audio_codec is not None


class PlayableCopyStatus(StrEnum):
    """The states of a video file in the queue for playable copies."""

    WAITING = "waiting"
    INSPECTING = "inspecting"
    MAKING = "making"
    READY = "ready"
    UNNEEDED = "unneeded"  # browsers play the file itself
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ClaimedVideoFile:
    """A video file that one worker has claimed, to make a playable copy where browsers cannot play the file."""

    video_id: int
    video: str  # its identifier
    source_url: str
    owner: str
    attempt: int
    failures: int  # to write the copy
    declares_more: bool  # a longer duration than it has, which browsers show
