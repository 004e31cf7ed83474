"""The names that copies of a library's files have in storage: the same file gets the same name each time."""

import re
from pathlib import Path

from app.storage import audio_folder, clip_folder, name_of, thumbnail_folder, video_folder

# What every file system and every address takes as it is.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()-]{0,199}\.mp4")


def film_key(video: str, path: Path) -> str:
    return f"{video_folder(video)}/{name_of(video)}{path.suffix.lower()}"


def thumbnail_key(video: str, path: Path) -> str:
    return f"{thumbnail_folder(video)}/{name_of(video)}{path.suffix.lower()}"


def audio_key(video: str, path: Path) -> str:
    return f"{audio_folder(video)}/{name_of(video)}{path.suffix.lower()}"


def clip_key(video: str, legacy_id: str, name: str) -> str:
    """A clip keeps its name, by which old links find it, where every file system and every address takes that."""
    return f"{clip_folder(video)}/{name if _PLAIN_NAME.fullmatch(name) else f'{name_of(legacy_id)}.mp4'}"
