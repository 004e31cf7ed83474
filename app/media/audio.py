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
from app.media.lengths import MAX_HOURS, check_content, check_hours, work_seconds
from app.media.opening import BoundedFile, Limits, TooExpensive, measure, open_film
from app.media.sound import Sound
from app.media.streams import choose_audio_stream
from app.media.timeline import Timeline, read_timeline

RATE = 16_000  # samples for each second
BYTES_PER_SECOND = RATE * 2
LIMIT_SECONDS = 3600.0

_FILM_BYTES = 1024**4


def extract_audio(
    film: BinaryIO,
    target: Path,
    stopping: threading.Event,
    progress: Callable[[float], None],
    limit_seconds: float = LIMIT_SECONDS,
    max_hours: float = MAX_HOURS,
) -> float:
    """Write the sound of a film to `target`, all of it or nothing, and return its seconds; it blocks.

    Times in the sound are times of the film. `progress` gets the share that is done, again and again, where the film
    says how long it is. A film that is longer than `max_hours`, or than its file can hold, is refused. Raises
    `StageFailed`, `Stopped`, what reading the film raises, and `OSError` for the target.
    """
    draft = target.with_name(f"{target.name}.part")
    size = measure(film)
    bounded = BoundedFile(film, Limits(work_seconds(size, limit_seconds), _FILM_BYTES), stopping)
    try:
        timeline = read_timeline(bounded)
        check_hours(timeline.duration_seconds or 0.0, max_hours)
        with open_film(bounded) as container:
            chunks = _check(_samples_of(container, bounded, timeline, progress), bounded)
            samples = _write(draft, _check_length(chunks, size, max_hours))
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


def _samples_of(
    container: InputContainer, film: BoundedFile, timeline: Timeline, progress: Callable[[float], None]
) -> Iterator[bytes]:
    stream = choose_audio_stream(container)
    if stream is None:
        raise StageFailed("The video has no sound")
    duration = timeline.duration_seconds
    sound = Sound("mono", RATE, timeline.origin, timeline.end)
    for frame in decode(container, film, timeline, stream):
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


def _check_length(chunks: Iterator[bytes], size: int, max_hours: float) -> Iterator[bytes]:
    """Raise `StageFailed` for more sound than there can be: silence is filled in wherever time stamps leave a gap."""
    given = 0
    for chunk in chunks:
        given += len(chunk) // 2
        check_hours(given / RATE, max_hours)
        check_content(given / RATE, size)
        yield chunk


def _write(path: Path, chunks: Iterator[bytes]) -> int:
    samples = 0
    with path.open("wb") as file, closing(wave.open(file, "wb")) as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        for chunk in chunks:
            samples += len(chunk) // 2
            sound.writeframesraw(chunk)
    return samples
