"""Sounds for transcribers."""

import wave
from pathlib import Path

import numpy as np

from app.ai.protocols import AudioFile
from tests.speech import Sound

RATE = 16000


def write_wav(path: Path, audio: Sound, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes(audio.tobytes())
    return path


def make_audio(path: Path, seconds: float = 10.0, link: str | None = None) -> AudioFile:
    """A silence of so many seconds, which can be fetched from `link`."""
    write_wav(path, np.zeros(int(seconds * RATE), np.int16))
    return as_audio(path, seconds, link)


def as_audio(path: Path, seconds: float, link: str | None = None) -> AudioFile:
    async def get_link() -> str | None:
        return link

    return AudioFile(path, seconds, get_link)
