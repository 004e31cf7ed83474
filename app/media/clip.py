"""Clips: exact parts of films as MP4 files that play everywhere, H.264 and AAC, made by encoding anew.

Audio without a picture is cut into M4A files.

A film in a local file is cut by the system's ffmpeg where there is one; any other, as one in a bucket, of which only
the part is read, by PyAV. Both give as many frames and samples.
"""

import errno
import io
import os
import threading
from pathlib import Path
from typing import BinaryIO

import av

from app.core.errors import StageFailed
from app.media.audio_clip import cut_audio_clip
from app.media.cutting import MAX_BYTES, Cut, plan_cut
from app.media.cutting_with_ffmpeg import cut_with_ffmpeg, find_ffmpeg
from app.media.cutting_with_pyav import cut_with_pyav
from app.media.opening import BoundedFile, Limits, TooExpensive, open_film
from app.media.streams import choose_video_stream

LIMIT_SECONDS = 300.0
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FILM_BYTES = 1024**4


def cut_clip(
    film: BinaryIO,
    start: float,
    end: float,
    target: Path,
    stopping: threading.Event,
    limit_seconds: float = LIMIT_SECONDS,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write what a film shows from and to these seconds to `target`, all of it or nothing; it blocks.

    Where the film ends before, its last frame and silence go on. Raises `StageFailed`, `Stopped`, what reading the
    film raises, and `OSError` for the target.
    """
    draft = target.with_name(f"{target.name}.part")
    bounded = BoundedFile(film, Limits(limit_seconds, _FILM_BYTES), stopping)
    try:
        if _has_picture(bounded):
            _cut(film, bounded, plan_cut(bounded, start, end, max_bytes), draft)
        else:
            cut_audio_clip(bounded, start, end, draft)
        draft.replace(target)
    except TooExpensive:
        raise StageFailed(f"A clip of the video takes longer to cut than {limit_seconds:g} seconds") from None
    except av.FFmpegError as error:
        raise_if_full(error)
        raise StageFailed("The file of the video is damaged, no clip can be cut out of it") from None
    finally:
        draft.unlink(missing_ok=True)


def raise_if_full(error: Exception) -> None:
    """Raise `OSError` where PyAV could not write because the disk is full."""
    number = getattr(error, "errno", None)
    if number in _NO_ROOM:
        raise OSError(number, os.strerror(number)) from None


def _cut(film: BinaryIO, bounded: BoundedFile, cut: Cut, draft: Path) -> None:
    program = find_ffmpeg() if _is_local(film) else None
    if program is None or not cut_with_ffmpeg(program, film, bounded, cut, draft):
        cut_with_pyav(bounded, cut, draft)


def _has_picture(bounded: BoundedFile) -> bool:
    with open_film(bounded) as container:
        picture = choose_video_stream(container)
    bounded.seek(0)
    return picture is not None


def _is_local(film: BinaryIO) -> bool:
    try:
        return film.fileno() >= 0
    except io.UnsupportedOperation:
        return False
