"""Keys of stored files: a folder for each kind, and in it one for each video, so that the files of a video are found by
its identifier alone."""

import hashlib
import re

from app.core.errors import InvalidInput

# Accepted unchanged by every file system and URL. Lower case only: some file systems ignore case.
_PLAIN_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")

# Names that no part of a key may have; the last is the folder of incomplete files.
_RESERVED_NAMES = {"", ".", "..", ".incoming"}
_KEY_CHARACTERS = re.compile(r"[^\x00-\x1f\x7f\\\ud800-\udfff]{1,1024}")
_MAX_NAME_BYTES = 255
_MAX_KEY_BYTES = 1024  # the limit of Google Cloud Storage


def split_key(key: str) -> list[str]:
    """Return the parts of a key. Raises `InvalidInput` for one that could lead out of the store."""
    parts = key.split("/")
    if not _KEY_CHARACTERS.fullmatch(key) or _RESERVED_NAMES & set(parts) or len(key.encode()) > _MAX_KEY_BYTES:
        raise InvalidInput("This is not a name that a stored file can have")
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        raise InvalidInput("The name of the stored file is too long")
    return parts


def storable_name(identifier: str) -> str:
    """Return a file name for an identifier: itself where every file system takes it, else a plain part and a hash."""
    if _PLAIN_IDENTIFIER.fullmatch(identifier) and "--" not in identifier:
        return identifier
    plain = re.sub(r"[^a-z0-9_]+", "-", identifier.lower()).strip("-")[:60]
    return f"{plain}--{hashlib.sha256(identifier.encode()).hexdigest()[:16]}"


def video_folder_key(identifier: str) -> str:
    return f"videos/{storable_name(identifier)}"


def audio_folder_key(identifier: str) -> str:
    return f"audio/{storable_name(identifier)}"


def clip_folder_key(identifier: str) -> str:
    return f"clips/{storable_name(identifier)}"


def playable_folder_key(identifier: str) -> str:
    """Return the folder of the copy that browsers can play, where they cannot play the video's own file."""
    return f"playable/{storable_name(identifier)}"


def thumbnail_folder_key(identifier: str) -> str:
    return f"thumbnails/{storable_name(identifier)}"
