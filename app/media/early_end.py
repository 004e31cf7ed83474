"""Files that were cut off, as by a transfer that broke: where what is left of them ends."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

# Headers round, and a stream may end a little before the others.
_TOLERANCE_SECONDS, _TOLERANCE_SHARE = 1.0, 0.02
_LEAD_SECONDS = 1.0  # before the last packet that an index finds whole: those of other streams lie around it
_UNKNOWN_RIFF_BYTES = 0x7FFFFFFF  # or more, in a file that was written without going back to its header
_ID3_BYTES, _FRAME_BYTES = 10, 512  # of an ID3 header, and of what the first frame of an MP3 file has its counts in
_XING = re.compile(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f]....(....)", re.DOTALL)  # with frames and bytes
_ATOM_BYTES, _ATOM_KINDS = 8, 20  # of the header of an atom, and how many kinds of them are looked at
_STEPS = 16  # of a bisection: a day is known to two seconds, and what follows is read


def find_cut(streams: Sequence[AudioStream | VideoStream], size: int) -> float | None:
    """Return a time stamp, in seconds, shortly before the end of a file of which a part is missing.

    None for a file that has all the packets of its index, or that has no index.
    """
    cuts = [cut for stream in streams if (cut := _find_cut(stream, size)) is not None]
    return max(min(cuts) - _LEAD_SECONDS, 0.0) if cuts else None


def _find_cut(stream: AudioStream | VideoStream, size: int) -> float | None:
    entries = stream.index_entries

    def is_missing(number: int) -> bool:
        return entries[number].pos + max(entries[number].size, 1) > size

    if not len(entries) or stream.time_base is None or not is_missing(len(entries) - 1):
        return None
    first_missing = bisect_left(range(len(entries)), True, key=is_missing)
    return float(entries[max(first_missing - 1, 0)].timestamp * stream.time_base)


def riff_declared_seconds(head: bytes, size: int, seconds: float) -> float | None:
    """Return about how long an AVI or WAV file of `size` bytes was before it was cut off; None for a whole one."""
    declared = int.from_bytes(head[4:8], "little") + 8
    if head[:4] != b"RIFF" or declared >= _UNKNOWN_RIFF_BYTES or declared <= size:
        return None
    whole = seconds * declared / size
    return whole if _is_much(whole - seconds, whole) else None


def mp3_declared_seconds(file: BinaryIO, size: int, seconds: float) -> float | None:
    """Return about how long an MP3 file was before it was cut off; None for a whole one, or one that does not say."""
    file.seek(0)
    head = file.read(_ID3_BYTES)
    first = _ID3_BYTES + _syncsafe(head[6:]) if head[:3] == b"ID3" else 0
    file.seek(first)
    found = _XING.search(file.read(_FRAME_BYTES))
    if found is None:
        return None
    declared, left = int.from_bytes(found[1], "big"), size - first
    whole = seconds * declared / left if 0 < left < declared else 0.0
    return whole if whole and _is_much(whole - seconds, whole) else None


def _syncsafe(digits: bytes) -> int:
    """Return a number whose bytes have 7 bits each."""
    return sum(digit << 7 * place for place, digit in enumerate(reversed(digits)))


def lacks_index(file: BinaryIO, size: int) -> bool:
    """Whether the atoms of an MP4 or QuickTime file go on after its end and the one that tells how to play is missing.

    Cameras and phones write that one last.
    """
    position, kinds = 0, set[bytes]()
    while position + _ATOM_BYTES <= size and len(kinds) < _ATOM_KINDS:
        file.seek(position)
        head = file.read(2 * _ATOM_BYTES)
        kinds.add(head[4:8])
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        position += max(length, _ATOM_BYTES) if length else size
    return b"mdat" in kinds and b"moov" not in kinds and position > size


def find_last_end(container: InputContainer, read_ends: Callable[[], Iterable[float]]) -> float | None:
    """Return when the last packet ends that can be read, where a seek to the end leads behind it; None for no packet.

    `read_ends` reads on from where the container is and yields when packets end.
    """
    readable, missing = 0, (max(container.start_time or 0, 0) + (container.duration or 0)) * 2
    for _ in range(_STEPS):
        middle = (readable + missing) // 2
        if _has_packets(container, middle, read_ends):
            readable = middle
        else:
            missing = middle
    return max(read_ends(), default=None) if _seek(container, readable) else None


def _has_packets(container: InputContainer, position: int, read_ends: Callable[[], Iterable[float]]) -> bool:
    return _seek(container, position) and next(iter(read_ends()), None) is not None


def _seek(container: InputContainer, position: int) -> bool:
    try:
        container.seek(position)
    except av.FFmpegError:
        return False
    return True


def is_cut_off(
    container: InputContainer, streams: Sequence[AudioStream | VideoStream], declared_seconds: float, seconds: float
) -> bool:
    """Whether a file of these seconds was longer: its header counts streams that are not played, too."""
    others = len(container.streams) - len(streams)
    return _is_much(declared_seconds - seconds, declared_seconds) and not others


def _is_much(missing_seconds: float, declared_seconds: float) -> bool:
    return missing_seconds > max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * declared_seconds)
