"""Limits on media files: how long they may play, and how much time and how many bytes reading one may cost."""

import io
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

from app.core.errors import StageFailed


class ReadLimitExceeded(Exception):
    """A file costs more than it may."""

    def __init__(self) -> None:
        super().__init__("the file takes too long to read")


class ProcessingStopped(Exception):
    """Somebody has said that the work is to end."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What reading one file may cost."""

    seconds: float
    bytes: int


class BoundedFile(io.RawIOBase):
    """A file that ends where its limits are reached or where it cannot be read; FFmpeg goes on after an exception.

    It ends, too, as soon as somebody sets `stopping`.
    """

    def __init__(self, file: BinaryIO, limits: ReadLimits, stopping: threading.Event | None = None) -> None:
        self._file = file
        self._stopping = stopping or threading.Event()
        self._left = limits.bytes
        self._deadline = time.monotonic() + limits.seconds
        self._failure: Exception | None = None
        self.is_spent = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be read; FFmpeg goes on with packets that are in its buffer or have no bytes."""
        self.is_spent = self.is_spent or self._left <= 0 or time.monotonic() > self._deadline
        return self.is_spent or self._failure is not None or self._stopping.is_set()

    @property
    def seconds_left(self) -> float:
        return max(self._deadline - time.monotonic(), 0.0)

    def read(self, size: int = -1) -> bytes:
        if self.has_ended:
            return b""
        try:
            chunk = self._file.read(size)
        except Exception as error:
            self._failure = error
            return b""
        self._left -= len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except Exception as error:
            self._failure = self._failure or error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def check(self) -> None:
        """Raise what reading raised."""
        if self._failure is not None:
            raise self._failure

    def check_limits(self) -> None:
        """Raise what reading raised, `ProcessingStopped`, or `ReadLimitExceeded` if reading had to end early."""
        self.check()
        if self._stopping.is_set():
            raise ProcessingStopped
        if self.is_spent or time.monotonic() > self._deadline:
            raise ReadLimitExceeded


def measure_file_size(file: "BinaryIO | BoundedFile") -> int:
    """Return the bytes of a file, and go back to its beginning."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


DEFAULT_MAX_HOURS = 12.0  # the default of the setting
# Codecs of radio links and codecs that store digital silence need 300 bit/s and more, and so does a picture that never
# changes. What is shorter than the first is believed: a recording may have been paused.
_ALWAYS_PLAUSIBLE_SECONDS = 600.0
_MIN_BYTES_PER_SECOND = 32
# Work on a file of any size, and on what each of its bytes is worth: a minute for 600 kB.
_WORK_SECONDS = 600.0
_WORK_BYTES_PER_SECOND = 10_000


def max_plausible_duration(size: int) -> float:
    """Return the most seconds that a file of `size` bytes is believed to last; time stamps can say anything."""
    return _ALWAYS_PLAUSIBLE_SECONDS + size / _MIN_BYTES_PER_SECOND


def processing_time_limit(size: int, most: float) -> float:
    """Return the seconds that work on a file of `size` bytes may take, at most `most`."""
    return min(_WORK_SECONDS + size / _WORK_BYTES_PER_SECOND, most)


def check_max_hours(seconds: float, max_hours: float) -> None:
    """Raise `StageFailed` for a video that is longer than the setting allows."""
    if seconds > max_hours * 3600:
        raise StageFailed(f"The video is longer than {max_hours:g} hours, the limit that MAX_VIDEO_HOURS sets")


def check_plausible_duration(seconds: float, size: int) -> None:
    """Raise `StageFailed` for more seconds than a file of `size` bytes can hold."""
    if seconds > max_plausible_duration(size):
        raise StageFailed("The time stamps of the video are wrong: its file is too small to be as long as they say")
