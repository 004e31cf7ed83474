"""How films are opened: which files at all, and what reading and decoding one may cost, whatever it says of itself."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import av
from av.container import InputContainer

MAX_PIXELS = 7680 * 4320
MAX_STREAMS = 256  # audio and subtitles in many languages, and their fonts

# Only containers that hold a film themselves: FFmpeg would open whatever a playlist names.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,mpegts,mpeg,flv,asf,mxf,gif,mp3,wav,w64,flac,aac,aiff,caf,amr,ac3"
)
_OPTIONS = {
    "format_whitelist": FORMATS,
    "protocol_whitelist": "none",  # and only this file
    # FFmpeg decodes a frame of each stream when it opens a file, and small packets become large frames. Headers and
    # parsers say enough of most files, and what is to be decoded is decoded of one stream.
    "codec_whitelist": "none",
    "max_streams": str(MAX_STREAMS),
}


class TooExpensive(Exception):
    """A file costs more than it may."""

    def __init__(self) -> None:
        super().__init__("the file takes too long to read")


class Stopped(Exception):
    """Somebody has said that the work is to end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one file may cost."""

    seconds: float
    bytes: int


class BoundedFile(io.RawIOBase):
    """A file that ends where its limits are reached or where it cannot be read; FFmpeg goes on after an exception.

    It ends, too, as soon as somebody sets `stopping`.
    """

    def __init__(self, file: BinaryIO, limits: Limits, stopping: threading.Event | None = None) -> None:
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
        """Raise what reading raised, and `Stopped` or `TooExpensive` where the file has to end before its end."""
        self.check()
        if self._stopping.is_set():
            raise Stopped
        if self.is_spent or time.monotonic() > self._deadline:
            raise TooExpensive


def measure(file: "BinaryIO | BoundedFile") -> int:
    """Return the bytes of a file, and go back to its beginning."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


@contextmanager
def open_film(file: BoundedFile, decoders: str = "none") -> Iterator[InputContainer]:
    """Open a video file. `decoders` may decode frames while it is opened: those that know the order of its packets.

    Raises `av.FFmpegError` for what is no film, `TooExpensive`, `Stopped`, and what reading the file raises."""
    try:
        # Titles in other encodings are as common as old cameras, and nothing here reads them.
        with av.open(
            file, "r", options={**_OPTIONS, "codec_whitelist": decoders}, metadata_errors="ignore"
        ) as container:
            yield container
    except av.FFmpegError:
        file.check_limits()
        raise
    file.check()
