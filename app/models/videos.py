"""Rows of `videos` and of `library.video_files`, and how videos and their files are described to users."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.core.text import clean_line

# Transcripts and models hear a word a little past the end; a moment that ends further out belongs to another file.
_OUTSIDE_SECONDS = 1.0


def display_title(identifier: str, title: str | None) -> str:
    """Return the stored title, or the identifier as words: `demo-talk` is "Demo Talk".

    Older rows and the names of imported files may hold characters that nobody sees; they are not shown.
    """
    return clean_line(title) if title else _to_words(clean_line(identifier)).title()


def title_from_name(name: str) -> str:
    """Return what a video is called after the name of its file, without its extension: `demo-talk` is "Demo Talk".

    Where the name has spaces somebody has written it to be read: its capitals stay as they are.
    """
    words = _to_words(name).split()
    if len(name.split()) < 2:
        return " ".join(words).title()
    return " ".join(word if word != word.lower() else word[:1].upper() + word[1:] for word in words)


def _to_words(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def describe_early_end(seconds: float | None, ends_early: bool, declared_seconds: float | None) -> str | None:
    """Return in a sentence that a file was cut off; None where it was not."""
    if not ends_early or seconds is None:
        return None
    if declared_seconds is None:
        return f"The file ends early, in the middle of a packet: {seconds:.1f} seconds can be played"
    return f"The file ends early: {seconds:.1f} of {declared_seconds:.1f} seconds can be played"


def describe_moment_outside(moment_end: float, seconds: float | None) -> str | None:
    """Return in a sentence that a moment ends after its video; None where it does not, but for rounding."""
    if seconds is None or moment_end <= seconds + _OUTSIDE_SECONDS:
        return None
    return f"The moment ends at {moment_end:.1f} seconds, after the end of the video at {seconds:.1f} seconds"


@dataclass(frozen=True, slots=True)
class Video:
    """A video of the library. Everything else that is stored belongs to one."""

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
        """Whether its file is known to have audio and no picture."""
        return self.video_codec is None and self.audio_codec is not None


class FileStatus(StrEnum):
    """How far a video's file is on its way to be played."""

    WAITING = "waiting"
    INSPECTING = "inspecting"
    MAKING = "making"
    READY = "ready"
    UNNEEDED = "unneeded"  # browsers play the file itself
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ClaimedFile:
    """A file that one worker has claimed.

    `attempt` counts the claims, `failures` how often its copy could not be written. Where it `declares_more` than it
    has, browsers show a wrong duration.
    """

    video_id: int
    video: str  # its identifier
    source_url: str
    owner: str
    attempt: int
    failures: int
    declares_more: bool
