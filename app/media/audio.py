"""The sound of a film as transcribers want it: a WAV file, 16 kHz, mono, 16 bits, extracted with PyAV."""

import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer

from app.core.errors import StageFailed
from app.media.decoding import decode
from app.media.opening import BoundedFile, Limits, TooExpensive, open_film
from app.media.sound import Sound
from app.media.streams import choose_audio_stream
from app.media.timeline import Timeline, read_timeline

RATE = 16_000  # samples for each second
LIMIT_SECONDS = 3600.0

_FILM_BYTES = 1024**4
_MAX_SAMPLES = (2**32 - 1024) // 2  # a WAV file counts its bytes in 32 bits


def extract_audio(
    film: BinaryIO,
    target: Path,
    stopping: threading.Event,
    progress: Callable[[float], None],
    limit_seconds: float = LIMIT_SECONDS,
) -> float:
    """Write the sound of a film to `target`, all of it or nothing, and return its seconds; it blocks.

    Times in the sound are times of the film. `progress` gets the share that is done, again and again, where the film
    says how long it is. Raises `StageFailed`, `Stopped`, what reading the film raises, and `OSError` for the target.
    """
    draft = target.with_name(f"{target.name}.part")
    bounded = BoundedFile(film, Limits(limit_seconds, _FILM_BYTES), stopping)
    try:
        timeline = read_timeline(bounded)
        with open_film(bounded) as container:
            samples = _write(draft, _check(_samples_of(container, timeline, progress), bounded))
        if not samples:
            raise StageFailed("No sound of the video can be decoded")
        draft.replace(target)
        return samples / RATE
    except TooExpensive:
        raise StageFailed("The sound of the video takes too long to extract") from None
    except av.FFmpegError:
        raise StageFailed("The file of the video is damaged, its sound cannot be read") from None
    finally:
        draft.unlink(missing_ok=True)


def wav_seconds(path: Path) -> float:
    """Return how long a WAV file plays. Raises `wave.Error`, `EOFError` and `OSError`."""
    with wave.open(str(path), "rb") as file:
        return file.getnframes() / file.getframerate()


def _samples_of(container: InputContainer, timeline: Timeline, progress: Callable[[float], None]) -> Iterator[bytes]:
    stream = choose_audio_stream(container)
    if stream is None:
        raise StageFailed("The video has no sound")
    duration = timeline.duration_seconds
    sound = Sound("mono", RATE, timeline.origin, timeline.end)
    for frame in decode(container, timeline, stream):
        if isinstance(frame, AudioFrame):
            yield from sound.add(frame)
        if duration:
            progress(min(sound.samples / RATE / duration, 1.0))
    yield from sound.finish()


def _check(chunks: Iterator[bytes], film: BoundedFile) -> Iterator[bytes]:
    """Raise `TooExpensive` and `Stopped` where the film did not end by itself."""
    for chunk in chunks:
        film.check_limits()
        yield chunk
    film.check_limits()


def _write(path: Path, chunks: Iterator[bytes]) -> int:
    samples = 0
    with path.open("wb") as file, closing(wave.open(file, "wb")) as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        for chunk in chunks:
            samples += len(chunk) // 2
            if samples > _MAX_SAMPLES:
                raise StageFailed("The video has more than 37 hours of sound, which no WAV file can hold")
            sound.writeframesraw(chunk)
    return samples
