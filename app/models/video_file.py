"""A video's file in the hands of the worker that makes a playable copy of it."""

from dataclasses import dataclass
from enum import StrEnum


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
