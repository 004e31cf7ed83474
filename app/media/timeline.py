"""Timelines of media files: the time stamp shown as 0:00, the end, and where the clock restarts."""

import hashlib
import io
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, TypeVar, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream
from cachetools import LRUCache

from app.media.container import (
    PlayableStream,
    ReadLimitedFile,
    choose_playable_streams,
    discard_other_streams,
    measure_file_size,
    open_container,
    packet_end_seconds,
    packet_start_seconds,
    read_packets,
)
from app.media.truncated_packet import lacks_mxf_index
from app.media.truncation import (
    declares_longer_duration,
    find_truncation_time,
    has_unknown_riff_size,
    search_last_packet_end,
)

_AnyStream = TypeVar("_AnyStream", bound=Stream)

_REORDERED_PACKETS = 16  # the most frames that codecs reorder
_MAX_ORIGIN_PACKETS = 200
_SCAN_SECONDS = 15.0
_MAX_KEY_FRAMES = 50_000  # kept per file: one for each second of 14 hours
# Time stamps that jump back or forward by more than this start another clock.
_JUMP_BACK_SECONDS: Final = 0.5
_JUMP_FORWARD_SECONDS: Final = 60.0
_FINGERPRINT_BYTES = 64 * 1024
_RIFF_HEADER_BYTES = 8
_INTERLEAVING_BYTES = 4 * 1024**2  # between packets of the same time in a file

_timeline_cache_lock = threading.Lock()
_timeline_cache: "LRUCache[bytes, Timeline]" = LRUCache(64)


@dataclass(frozen=True, slots=True)
class ClockRestart:
    """From byte `position` on, `shift` seconds are added to time stamps to continue the previous clock."""

    position: int
    shift: float


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A key frame: its time on the continuous clock, and its byte offset."""

    time: float
    position: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The continuous clock of a file: its time stamps in seconds, shifted wherever its clock restarts.

    `origin` is what players show as 0:00, the first frame or sample. `end` is the end of the last one of the chosen
    streams, None if unknown, and `declared_end` what a truncated file declares. `key_frames` are known if the clock
    restarts, because such a file has no usable seek by time. A file that is not `is_seekable` is read from its
    beginning.
    """

    origin: float
    end: float | None
    restarts: Sequence[ClockRestart] = ()
    key_frames: Sequence[KeyFrame] = ()
    declared_end: float | None = None
    is_seekable: bool = True

    @property
    def declared_seconds(self) -> float | None:
        return None if self.declared_end is None else self.declared_end - self.origin

    @property
    def duration_seconds(self) -> float | None:
        return None if self.end is None or self.end <= self.origin else self.end - self.origin

    def to_continuous_clock(self, packets: "Iterable[Packet[_AnyStream]]") -> "Iterator[Packet[_AnyStream]]":
        last_positions: dict[int, int] = {}
        for packet in packets:
            if self.restarts:
                position = last_positions[packet.stream.index] = _packet_byte_position(packet, last_positions)
                _shift_packet_times(packet, self._clock_shift_seconds_at(position))
            yield packet

    def _clock_shift_seconds_at(self, byte_position: int) -> float:
        return next((each.shift for each in reversed(self.restarts) if each.position <= byte_position), 0.0)


def read_timeline(file: ReadLimitedFile, needs_end: bool = True, may_read_all: bool = False) -> Timeline:
    """Return the timeline of a file, which is to be opened again afterwards.

    Without `needs_end` less is read. A file that declares no duration has an end only if `may_read_all`. Raises what
    `open_container` raises.
    """
    file_size = measure_file_size(file)
    declared_end = end = None
    with open_container(file) as container:
        streams = choose_playable_streams(container)
        origin = _read_origin(container, file, streams)
        needs_scan = _needs_packet_scan(container, may_read_all)
        is_seekable = not _has_lost_mxf_index(container, file, file_size)
        if needs_end and not needs_scan:
            can_seek = is_seekable and not has_unreliable_seek(container)
            declared_end, end = _find_ends(container, streams, origin, file, file_size, can_seek)
    file.seek(0)
    if needs_scan:
        return _scan_timeline_cached(file, origin)
    if file.is_limit_reached:
        declared_end = end = None
    return Timeline(origin, end, declared_end=declared_end, is_seekable=is_seekable)


def declared_origin(container: InputContainer) -> float:
    """Return the earliest time stamp, in seconds, at which a stream starts by its header."""
    starts = [
        start for stream in choose_playable_streams(container) if (start := _declared_stream_start(stream)) is not None
    ]
    return min(starts, default=(container.start_time or 0) / av.time_base)


def declared_duration(container: InputContainer) -> float:
    """Return the duration, in seconds, that the header declares, 0 if none."""
    duration, start = (container.duration or 0) / av.time_base, max(declared_origin(container), 0.0)
    return duration - start if _duration_includes_start(container) and duration > start else duration


def has_unreliable_seek(container: InputContainer) -> bool:
    """Return whether packets have wrong times after a seek, as ADPCM in WAV has."""
    return container.format.name in ("wav", "w64") and any(
        stream.codec_context.name.startswith("adpcm") for stream in choose_playable_streams(container)
    )


def _duration_includes_start(container: InputContainer) -> bool:
    """Return whether the header's duration is the time stamp of the end, as in Matroska and ASF."""
    return container.format.name.startswith(("matroska", "asf"))


def _read_origin(container: InputContainer, file: ReadLimitedFile, streams: Sequence[PlayableStream]) -> float:
    """Return the time stamp, in seconds, of the first frame or sample that is played."""
    first: dict[int, float] = {}
    left = {stream.index: _REORDERED_PACKETS if isinstance(stream, VideoStream) else 1 for stream in streams}
    discard_other_streams(container, *streams)
    packets = read_packets(container, file, streams)
    for _, packet in zip(range(_MAX_ORIGIN_PACKETS), packets, strict=False):
        index, skipped = packet.stream.index, _priming_seconds(packet)
        # A discarded packet still shows when audio begins if it counts priming samples.
        if packet.pts is not None and left[index] and (skipped or not packet.is_discard):
            left[index] -= 1
            first[index] = min(first.get(index, float("inf")), packet_start_seconds(packet) + skipped)
        if not any(left.values()):
            break
    for stream in streams:
        if stream.index not in first and (start := _declared_stream_start(stream)) is not None:
            first[stream.index] = start
    return min(first.values(), default=(container.start_time or 0) / av.time_base)


def _declared_stream_start(stream: PlayableStream) -> float | None:
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def _priming_seconds(packet: "Packet[Stream]") -> float:
    """Return the duration of the encoder delay (priming samples), which is decoded and not played."""
    if not isinstance(packet.stream, AudioStream) or not packet.stream.codec_context.sample_rate:
        return 0.0
    counts = [bytes(data)[:4] for data in packet.iter_sidedata() if data.data_type == "skip_samples"]
    return sum(int.from_bytes(count, "little") for count in counts) / packet.stream.codec_context.sample_rate


def _needs_packet_scan(container: InputContainer, may_read_all: bool) -> bool:
    """Return whether the format allows concatenated recordings, or has no duration but that of its last packet."""
    return bool(container.format.flags & cast(int, Flags.ts_discont.value)) or (may_read_all and not container.duration)


def _find_ends(
    container: InputContainer,
    streams: Sequence[PlayableStream],
    origin: float,
    file: ReadLimitedFile,
    file_size: int,
    can_seek: bool,
) -> tuple[float | None, float | None]:
    """Return the declared end if a file of `file_size` bytes is truncated, and the real end."""

    def read_ends() -> Iterator[float]:
        return map(packet_end_seconds, read_packets(container, file, streams))

    if not container.duration:
        return None, None
    # Formats that declare one duration for the whole file: FFmpeg repeats it for each stream, wherever it begins.
    declared_ends = [] if _duration_includes_start(container) else [_declared_stream_end(stream) for stream in streams]
    declared = max((end for end in declared_ends if end is not None), default=origin + declared_duration(container))
    cut = find_truncation_time(streams, file_size)
    if cut is None and "mov" in container.format.name and declared_ends and None not in declared_ends:
        return None, declared
    hint = max(container.start_time or 0, 0) + container.duration if cut is None else round(cut * av.time_base)
    try:
        if can_seek:
            container.seek(hint)
        end = max(read_ends(), default=None)
    except av.FFmpegError:  # not seekable
        end = None
    end = end or search_last_packet_end(container, read_ends)
    if end is None:
        return None, declared
    is_short = declares_longer_duration(container, streams, declared - origin, end - origin)
    return (declared if is_short and not _is_estimated_duration(container, file) else None), end


def _has_lost_mxf_index(container: InputContainer, file: ReadLimitedFile, file_size: int) -> bool:
    if container.format.name != "mxf":
        return False
    position = file.tell()
    has_lost_index = lacks_mxf_index(file, file_size)
    file.seek(position)
    return has_lost_index


def _is_estimated_duration(container: InputContainer, file: ReadLimitedFile) -> bool:
    """Return whether FFmpeg's duration may be an estimate from the bit rate; moves the position of the file."""
    file.seek(0)
    return container.format.name == "asf" or (
        container.format.name == "avi" and has_unknown_riff_size(file.read(_RIFF_HEADER_BYTES))
    )


def _declared_stream_end(stream: PlayableStream) -> float | None:
    if not stream.duration or stream.time_base is None:
        return None
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _packet_byte_position(packet: "Packet[_AnyStream]", last_positions: dict[int, int]) -> int:
    return last_positions.get(packet.stream.index, 0) if packet.pos is None else packet.pos


def _shift_packet_times(packet: "Packet[_AnyStream]", seconds: float) -> None:
    if seconds and packet.time_base:
        ticks = round(Fraction(seconds) / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks


@dataclass(slots=True)
class _ClockSegment:
    """A part of a file with one clock, from a byte position on."""

    position: int
    start: float = float("inf")
    end: float = float("-inf")
    key_frames: list[KeyFrame] = field(default_factory=list)


class _ClockRestartScanner:
    """Finds from all packets of a file where its clock restarts."""

    def __init__(self) -> None:
        self._segments = [_ClockSegment(0)]
        self._positions: dict[int, int] = {}
        self._key_frames = 0
        self._last: dict[int, tuple[int, float]] = {}  # by stream: its current segment and last decoding time

    def add_packet(self, packet: "Packet[Stream]") -> None:
        position = self._positions[packet.stream.index] = _packet_byte_position(packet, self._positions)
        stamp = packet.dts if packet.dts is not None else packet.pts
        decoded = float((stamp or 0) * packet.time_base)
        number = self._find_segment_index(packet.stream.index, position, decoded)
        self._last[packet.stream.index] = number, decoded
        segment, start = self._segments[number], packet_start_seconds(packet)
        segment.start, segment.end = min(segment.start, start), max(segment.end, packet_end_seconds(packet))
        if packet.is_keyframe and packet.pos is not None and isinstance(packet.stream, VideoStream):
            self._key_frames += 1
            if self._key_frames <= _MAX_KEY_FRAMES:
                segment.key_frames.append(KeyFrame(start, packet.pos))

    def _find_segment_index(self, stream_index: int, position: int, decoding_time: float) -> int:
        number = max(index for index, segment in enumerate(self._segments) if segment.position <= position)
        before, last = self._last.get(stream_index, (number, decoding_time))
        jumps = (
            decoding_time < last - _JUMP_BACK_SECONDS
            or decoding_time > max(last, self._segments[before].end) + _JUMP_FORWARD_SECONDS
        )
        if not jumps or number != before:
            return number
        if number == len(self._segments) - 1:
            self._segments.append(_ClockSegment(position))
        elif self._segments[number + 1].position - position > _INTERLEAVING_BYTES:
            return number  # a wrong time stamp, not the start of the next segment
        self._segments[number + 1].position = position
        return number + 1

    def build_timeline(self, origin: float) -> Timeline:
        end = self._segments[0].end
        restarts: list[ClockRestart] = []
        key_frames = list(self._segments[0].key_frames)
        for segment in self._segments[1:]:
            shift = end - segment.start
            restarts.append(ClockRestart(segment.position, shift))
            key_frames += [KeyFrame(each.time + shift, each.position) for each in segment.key_frames]
            end = segment.end + shift
        return Timeline(origin, end if end > origin else None, restarts, key_frames if restarts else ())


def _scan_timeline_cached(file: ReadLimitedFile, origin: float) -> Timeline:
    """Scan all packets, or return the cached result: many clips are cut from one file."""
    fingerprint = _fingerprint_file(file)
    with _timeline_cache_lock:
        known = _timeline_cache.get(fingerprint)
    if known is None:
        known = _scan_timeline(file, origin)
        if known.end is not None and not file.is_limit_reached:
            with _timeline_cache_lock:
                _timeline_cache[fingerprint] = known
    file.seek(0)
    return known


def _fingerprint_file(file: ReadLimitedFile) -> bytes:
    """Identify a file by its size, its beginning and its end, wherever it is stored."""
    length = file.seek(0, io.SEEK_END)
    digest = hashlib.sha256(str(length).encode())
    for position in (0, max(length - _FINGERPRINT_BYTES, 0)):
        file.seek(position)
        digest.update(file.read(_FINGERPRINT_BYTES))
    file.seek(0)
    return digest.digest()


def _scan_timeline(file: ReadLimitedFile, origin: float) -> Timeline:
    """Scan all packets; if that takes too long, return only what the header declares."""
    deadline, scan = time.monotonic() + _SCAN_SECONDS, _ClockRestartScanner()
    with open_container(file) as container:
        streams = choose_playable_streams(container)
        discard_other_streams(container, *streams)
        for packet in read_packets(container, file, streams):
            if time.monotonic() > deadline:
                break
            scan.add_packet(packet)
        else:
            return Timeline(origin, None) if file.is_limit_reached else scan.build_timeline(origin)
        return Timeline(origin, origin + container.duration / av.time_base if container.duration else None)
