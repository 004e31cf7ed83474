"""Truncated files, as after a broken transfer: where they end now, and how long they were before."""

import io
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

ASF_HEADER_BYTES = 1024**2  # that contain the header
_ASF_PROPERTIES_GUID = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA_GUID = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA_HEADER_BYTES = 50
_ASF_BROADCAST_FLAG = 1  # lengths were unknown when the header was written


@dataclass(frozen=True, slots=True)
class AsfHeader:
    """Header of ASF files (WMV, WMA). `seconds` and `data_end` are None if unknown when it was written."""

    seconds: float | None
    data_start: int
    data_end: int | None
    packet_bytes: int


def read_asf_header(first_bytes: bytes) -> AsfHeader | None:
    properties, data = first_bytes.find(_ASF_PROPERTIES_GUID), first_bytes.find(_ASF_DATA_GUID)
    if properties < 0 or data < 0:
        return None

    def read_properties_number(offset: int, length: int) -> int:
        return int.from_bytes(first_bytes[properties + offset : properties + offset + length], "little")

    seconds = read_properties_number(64, 8) / 10_000_000 - read_properties_number(80, 8) / 1000  # less the preroll
    data_bytes = int.from_bytes(first_bytes[data + 16 : data + 24], "little")
    is_known = not read_properties_number(88, 4) & _ASF_BROADCAST_FLAG
    return AsfHeader(
        seconds=seconds if is_known and seconds > 0 else None,
        data_start=data + _ASF_DATA_HEADER_BYTES,
        data_end=data + data_bytes if is_known and data_bytes > _ASF_DATA_HEADER_BYTES else None,
        packet_bytes=read_properties_number(92, 4),
    )


# Headers round, and streams end at slightly different times.
_TOLERANCE_SECONDS, _TOLERANCE_SHARE = 1.0, 0.02
_LEAD_SECONDS = 1.0  # before the last whole packet, around which packets of other streams lie
_UNKNOWN_RIFF_BYTES = 0x7FFFFFFF  # or more, or 0
_CAF_HEADER_BYTES = 12
_WAVE64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_ID3_BYTES, _FRAME_BYTES = 10, 512  # of an ID3 header, and of the first frame with the Xing header
_XING_HEADER = re.compile(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f]....(....)", re.DOTALL)  # with frame and byte count
_ATOM_BYTES, _ATOM_KINDS = 8, 20  # of an atom's header, and the number of atom types that are inspected
_BISECTION_STEPS = 16  # narrow a day down to two seconds


def find_truncation_time(streams: Sequence[AudioStream | VideoStream], file_size: int) -> float | None:
    """Return a time stamp, in seconds, shortly before the end of a truncated file.

    None for a file that has all packets of its index, or has no index.
    """
    cuts = [cut for stream in streams if (cut := _find_stream_truncation_time(stream, file_size)) is not None]
    return max(min(cuts) - _LEAD_SECONDS, 0.0) if cuts else None


def _find_stream_truncation_time(stream: AudioStream | VideoStream, file_size: int) -> float | None:
    entries = stream.index_entries

    def is_packet_missing(index: int) -> bool:
        return entries[index].pos + max(entries[index].size, 1) > file_size

    if not len(entries) or stream.time_base is None or not is_packet_missing(len(entries) - 1):
        return None
    first_missing = bisect_left(range(len(entries)), True, key=is_packet_missing)
    return float(entries[max(first_missing - 1, 0)].timestamp * stream.time_base)


def duration_before_truncation(first_bytes: bytes, file_size: int, seconds: float) -> float | None:
    """Estimate the duration, in seconds, before a file of `file_size` bytes was truncated; None if it is whole.

    `first_bytes` is its beginning, where AVI, WAV, Wave64, CAF and ASF declare their size in bytes.
    """
    if header := read_asf_header(first_bytes):
        is_short = header.data_end is not None and header.data_end > file_size
        whole = header.seconds or 0.0 if is_short else 0.0
    else:
        start, end = _declared_byte_range(first_bytes)
        whole = seconds * (end - start) / (file_size - start) if end > file_size > start else 0.0
    return whole if exceeds_duration_tolerance(whole - seconds, whole) else None


def _declared_byte_range(first_bytes: bytes) -> tuple[int, int]:
    if first_bytes[:4] == b"RIFF":
        return 0, 0 if has_unknown_riff_size(first_bytes) else int.from_bytes(first_bytes[4:8], "little") + 8
    if first_bytes[:16] == _WAVE64:
        return 0, int.from_bytes(first_bytes[16:24], "little")
    for kind, start, end in _walk_caf_chunks(io.BytesIO(first_bytes), len(first_bytes)):
        if kind == b"data":
            return start, end or 0
    return 0, 0


def _walk_caf_chunks(file: BinaryIO, file_size: int) -> Iterator[tuple[bytes, int, int | None]]:
    """Yield type, start and end of the chunks of a CAF file, None for an unknown end."""
    file.seek(0)
    position: int | None = 8 if file.read(4) == b"caff" else None
    while position is not None and position + _CAF_HEADER_BYTES <= file_size:
        file.seek(position)
        head = file.read(_CAF_HEADER_BYTES)
        start, length = position + _CAF_HEADER_BYTES, int.from_bytes(head[4:], "big", signed=True)
        position = start + length if length > 0 else None
        yield head[:4], start, position


def has_unknown_riff_size(first_bytes: bytes) -> bool:
    """Return whether an AVI or WAV file was written without a final size in its header."""
    return first_bytes[:4] == b"RIFF" and not 0 < int.from_bytes(first_bytes[4:8], "little") < _UNKNOWN_RIFF_BYTES


def mp3_duration_before_truncation(file: BinaryIO, file_size: int, seconds: float) -> float | None:
    """Estimate the duration of an MP3 file before it was truncated; None if it is whole or has no Xing header."""
    file.seek(0)
    head = file.read(_ID3_BYTES)
    first = _ID3_BYTES + _decode_syncsafe_integer(head[6:]) if head[:3] == b"ID3" else 0
    file.seek(first)
    found = _XING_HEADER.search(file.read(_FRAME_BYTES))
    if found is None:
        return None
    declared, left = int.from_bytes(found[1], "big"), file_size - first
    whole = seconds * declared / left if 0 < left < declared else 0.0
    return whole if whole and exceeds_duration_tolerance(whole - seconds, whole) else None


def _decode_syncsafe_integer(digits: bytes) -> int:
    return sum(digit << 7 * index for index, digit in enumerate(reversed(digits)))


def has_lost_index(file: BinaryIO, file_size: int) -> bool:
    """Return whether an MP4, QuickTime or CAF file was truncated before the index that players need.

    Cameras and phones write it last.
    """
    if any(end is not None and end > file_size for _, _, end in _walk_caf_chunks(file, file_size)):
        return True
    position, kinds = 0, set[bytes]()
    while position + _ATOM_BYTES <= file_size and len(kinds) < _ATOM_KINDS:
        file.seek(position)
        head = file.read(2 * _ATOM_BYTES)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        position += max(length, _ATOM_BYTES) if length else file_size
        if kind != b"moov" or position <= file_size:
            kinds.add(kind)
    return b"mdat" in kinds and b"moov" not in kinds and position > file_size


def search_last_packet_end(container: InputContainer, read_packet_ends: Callable[[], Iterable[float]]) -> float | None:
    """Return the end, in seconds, of the last readable packet by bisection; None if there is none.

    `read_packet_ends` reads on from the container's position and yields the ends of packets.
    """
    readable, missing = 0, (max(container.start_time or 0, 0) + (container.duration or 0)) * 2
    for _ in range(_BISECTION_STEPS):
        middle = (readable + missing) // 2
        if _has_packets_after(container, middle, read_packet_ends):
            readable = middle
        else:
            missing = middle
    return max(read_packet_ends(), default=None) if _try_seek(container, readable) else None


def _has_packets_after(
    container: InputContainer, position: int, read_packet_ends: Callable[[], Iterable[float]]
) -> bool:
    return _try_seek(container, position) and next(iter(read_packet_ends()), None) is not None


def _try_seek(container: InputContainer, position: int) -> bool:
    try:
        container.seek(position)
    except av.FFmpegError:
        return False
    return True


def declares_longer_duration(
    container: InputContainer, played_streams: Sequence[AudioStream | VideoStream], declared: float, readable: float
) -> bool:
    """Return whether a truncated file declares more seconds than are readable.

    Always False with other streams than the played ones, which a header counts, too.
    """
    has_other_streams = len(container.streams) > len(played_streams)
    return exceeds_duration_tolerance(declared - readable, declared) and not has_other_streams


def exceeds_duration_tolerance(missing_seconds: float, declared_seconds: float) -> bool:
    return missing_seconds > max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * declared_seconds)
