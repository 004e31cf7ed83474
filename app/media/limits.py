"""Limits on media files: how long they may play, and how much time and how many bytes reading one may take."""

import io
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

from app.core.errors import StageFailed


class ReadLimitExceeded(Exception):
    """Reading a file takes too much time or too many bytes."""

    def __init__(self) -> None:
        super().__init__("the file takes too long to read")


class ProcessingStopped(Exception):
    """The `stopping` event was set."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The most seconds and bytes that reading one file may take."""

    seconds: float
    bytes: int


class BoundedFile(io.RawIOBase):
    """A file that reports its end when a limit is reached, a read fails, or `stopping` is set.

    FFmpeg goes on after an exception, but not at the end of a file: call `check_limits` afterwards.
    """

    def __init__(self, file: BinaryIO, limits: ReadLimits, stopping: threading.Event | None = None) -> None:
        self._file = file
        self._stopping = stopping or threading.Event()
        self._left = limits.bytes
        self._deadline = time.monotonic() + limits.seconds
        self._failure: Exception | None = None
        self.is_limit_reached = False

    @property
    def has_ended(self) -> bool:
        """Return whether to stop reading; FFmpeg goes on with packets that are buffered or empty."""
        self.is_limit_reached = self.is_limit_reached or self._left <= 0 or time.monotonic() > self._deadline
        return self.is_limit_reached or self._failure is not None or self._stopping.is_set()

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

    def raise_read_error(self) -> None:
        if self._failure is not None:
            raise self._failure

    def check_limits(self) -> None:
        """Raise the read error, `ProcessingStopped` or `ReadLimitExceeded`, if there was any."""
        self.raise_read_error()
        if self._stopping.is_set():
            raise ProcessingStopped
        if self.is_limit_reached or time.monotonic() > self._deadline:
            raise ReadLimitExceeded


def measure_file_size(file: "BinaryIO | BoundedFile") -> int:
    """Return the size of a file in bytes, and rewind it."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


DEFAULT_MAX_HOURS = 12.0  # the default of the setting
# The most economical speech codecs, digital silence and static video need 300 bit/s and more. Up to the first limit any
# duration is plausible: a recording may have been paused.
_ALWAYS_PLAUSIBLE_SECONDS = 600.0
_MIN_BYTES_PER_SECOND = 32
# Base time for any file, and one more second for each 10 kB.
_WORK_SECONDS = 600.0
_WORK_BYTES_PER_SECOND = 10_000


def max_plausible_duration(size: int) -> float:
    """Return the longest plausible duration, in seconds, of a file of `size` bytes."""
    return _ALWAYS_PLAUSIBLE_SECONDS + size / _MIN_BYTES_PER_SECOND


def processing_time_limit(size: int, most: float) -> float:
    return min(_WORK_SECONDS + size / _WORK_BYTES_PER_SECOND, most)


def check_max_hours(seconds: float, max_hours: float) -> None:
    if seconds > max_hours * 3600:
        raise StageFailed(f"The video is longer than {max_hours:g} hours, the limit that MAX_VIDEO_HOURS sets")


def check_plausible_duration(seconds: float, size: int) -> None:
    """Raise `StageFailed` if a file of `size` bytes cannot hold so many seconds."""
    if seconds > max_plausible_duration(size):
        raise StageFailed("The time stamps of the video are wrong: its file is too small to be as long as they say")
