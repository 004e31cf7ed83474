"""What calls of models need in tests."""

from pathlib import Path

from app.ai.protocols import AudioFile


def ignore(done: float) -> None:
    """Listen to no progress."""


def make_audio(path: Path, seconds: float) -> AudioFile:
    return AudioFile(path, seconds, _no_link)


async def _no_link() -> str | None:
    return None
