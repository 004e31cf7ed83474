"""Size of the sample tables of MP4 and QuickTime files, computed before FFmpeg unpacks them (ISO/IEC 14496-12).

A table names runs of equal samples, and FFmpeg allocates an entry for each sample: 2.5 kB can become gigabytes.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

# An entry takes about 40 bytes of memory. Real samples have bytes of their own, most of which a truncated file lost.
_FREE_ENTRIES, _MAX_ENTRIES = 2_000_000, 40_000_000
_HEADER_BYTES = 256 * 1024**2  # read of one box; a recording of a day has less
_UNPACKED_BYTES = 64 * 1024**2  # of all compressed headers of a file; real files have one of a few megabytes
_UNPACKED_AT_ONCE, _PACKED_AT_ONCE = 1024**2, 64 * 1024
_MAX_BOXES = 1_000_000  # in a header and in a file
_MAX_DEPTH = 16
_SAMPLES_AT_ONCE = 1024  # of uncompressed audio per entry
_BOX_BYTES, _LONG_BOX_BYTES = 8, 16
_CONTAINERS = frozenset(
    b"moov trak mdia minf stbl edts mvex moof traf udta dinf tapt tref wave ilst sinf schi gmhd".split()
)
_TABLES = frozenset(b"trak hdlr stts stsz stz2 stsc stco co64 elst trun cmvd".split())
_LEAVES = frozenset(
    b"stss stps ctts sdtp sbgp sgpd saiz saio senc covr mdat stts stsz stz2 stsc stco co64 trun".split()
)
# Boxes that FFmpeg reads anywhere in a file, and those in which recorders leave an unfinished header.
_HEADERS, _HIDDEN = _CONTAINERS | _TABLES | {b"cmov", b"meta", b"stsd"}, frozenset({b"free", b"hoov"})
_ANY_TABLE = re.compile(b"|".join(sorted(_TABLES)))
_COUNTS_OF_RUN = (0x100, 0x200, 0x400, 0x800)  # flags of `trun`: fields present for each sample

_Box = tuple[bytes, memoryview]


class _IndexTooLarge(Exception):
    """A file header larger than that of any recording."""


class _DecompressionBudget:
    """The bytes to which the compressed headers of a file may still unpack."""

    def __init__(self) -> None:
        self._left = _UNPACKED_BYTES

    def spend(self, byte_count: int) -> None:
        self._left -= byte_count
        if self._left < 0:
            raise _IndexTooLarge


def has_oversized_index(file: BinaryIO, file_size: int) -> bool:
    """Return whether the sample tables of a file of `file_size` bytes have more entries than it can have samples."""
    limit, entries, budget = min(_FREE_ENTRIES + file_size, _MAX_ENTRIES), 0, _DecompressionBudget()
    try:
        for header in _read_boxes_with_tables(file, file_size):
            entries += sum(_count_table_entries(_list_sample_table_boxes(memoryview(header), budget), file_size))
            if entries > limit:
                return True
    except _IndexTooLarge:
        return True
    return False


def _read_boxes_with_tables(file: BinaryIO, file_size: int) -> Iterator[bytes]:
    position = 0
    for _ in range(_MAX_BOXES):
        if position + _BOX_BYTES > file_size:
            return
        file.seek(position)
        head = file.read(2 * _LONG_BOX_BYTES)
        length, kind, start = _read_box_header(memoryview(head), file_size - position)
        if length < start:
            return
        if kind in _HEADERS or (kind in _HIDDEN and head[start + 4 : start + 8] in (b"moov", b"cmov")):
            file.seek(position)
            header = file.read(min(length, _HEADER_BYTES + 1))
            if len(header) > _HEADER_BYTES:
                raise _IndexTooLarge
            yield header
        position += length
    raise _IndexTooLarge


def _list_sample_table_boxes(header_box: memoryview, budget: _DecompressionBudget) -> list[_Box]:
    """Return the tables of a header. For fragments, which are many, their runs suffice."""
    found = list(_ANY_TABLE.finditer(header_box)) if bytes(header_box[4:8]) == b"moof" else []
    if found and all(each[0] == b"trun" for each in found):
        starts = [each.start() - 4 for each in found]
        return [(b"trun", header_box[start + 8 : start + _read_uint32(header_box, start)]) for start in starts]
    return list(_walk_boxes(header_box, budget))


def _read_box_header(data: memoryview, bytes_left: int) -> tuple[int, bytes, int]:
    """Return the length of a box, its type, and the length of its header."""
    length, kind = int.from_bytes(data[:4], "big"), bytes(data[4:8])
    if length == 1:
        return int.from_bytes(data[8:16], "big"), kind, _LONG_BOX_BYTES
    return length or bytes_left, kind, _BOX_BYTES


def _walk_boxes(data: memoryview, budget: _DecompressionBudget, depth: int = 0) -> Iterator[_Box]:
    """Yield types and contents of boxes in order, the outer ones first.

    In boxes of unknown type, tables are found by name, because FFmpeg reads them from almost anywhere.
    """
    position = 0
    for _ in range(_MAX_BOXES):
        if position + _BOX_BYTES > len(data):
            return
        length, kind, start = _read_box_header(data[position:], len(data) - position)
        if length < start:
            return
        content = data[position + start : position + length]
        yield kind, content
        yield from _walk_nested_boxes(kind, content, budget, depth)
        position += length
    raise _IndexTooLarge


def _walk_nested_boxes(kind: bytes, content: memoryview, budget: _DecompressionBudget, depth: int) -> Iterator[_Box]:
    if depth > _MAX_DEPTH:
        raise _IndexTooLarge
    if kind in _CONTAINERS:
        yield from _walk_boxes(content, budget, depth + 1)
    elif kind == b"meta":  # with or without a version field
        first = next(
            (offset for offset in range(0, len(content), 4) if bytes(content[offset : offset + 4]) == b"hdlr"), 4
        )
        yield from _walk_boxes(content[max(first - 4, 0) :], budget, depth + 1)
    elif kind not in _LEAVES:
        for found in _ANY_TABLE.finditer(content):
            yield found[0], content[found.end() :]
            if found[0] == b"cmvd":
                header = _decompress_header(content[found.end() + 4 :], budget)
                yield from _walk_boxes(memoryview(header), budget, depth + 1)


def _decompress_header(compressed: memoryview, budget: _DecompressionBudget) -> bytes:
    unpacker, parts = zlib.decompressobj(), [b""]
    budget.spend(_UNPACKED_AT_ONCE)
    try:
        for start in range(0, len(compressed), _PACKED_AT_ONCE):
            rest: bytes | memoryview = compressed[start : start + _PACKED_AT_ONCE]
            while not unpacker.eof and (rest or len(parts[-1]) == _UNPACKED_AT_ONCE):
                parts.append(unpacker.decompress(rest, _UNPACKED_AT_ONCE))
                budget.spend(len(parts[-1]))
                rest = unpacker.unconsumed_tail
            if unpacker.eof:
                break
    except zlib.error:
        return b""
    return b"".join(parts)


def _count_table_entries(boxes: Sequence[_Box], file_size: int) -> Iterator[int]:
    starts = [number for number, (kind, _) in enumerate(boxes) if kind == b"trak"]
    for start, end in zip([0, *starts], [*starts, len(boxes)], strict=True):
        track = boxes[start:end]
        edits = max([1, *(_read_uint32(each, 4) for each in _contents_of_types(track, b"elst"))])
        samples = sum(_read_uint32(each, 8) for each in _contents_of_types(track, b"stsz", b"stz2"))
        yield edits * (_count_pcm_entries(track, file_size) if _is_uncompressed_audio(track) else samples)
    yield from (_count_implausible_run_samples(each) for each in _contents_of_types(boxes, b"trun"))


def _contents_of_types(boxes: Sequence[_Box], *box_types: bytes) -> list[memoryview]:
    return [content for kind, content in boxes if kind in box_types]


def _is_uncompressed_audio(track_boxes: Sequence[_Box]) -> bool:
    """Return whether each sample lasts one tick: FFmpeg then merges the samples of a chunk."""
    runs = [(_read_uint32(each, 4), _read_uint32(each, 12)) for each in _contents_of_types(track_boxes, b"stts")]
    handlers = {bytes(each[8:12]) for each in _contents_of_types(track_boxes, b"hdlr")}
    return runs == [(1, 1)] and b"soun" in handlers and b"vide" not in handlers


def _count_pcm_entries(track_boxes: Sequence[_Box], file_size: int) -> int:
    chunks = sum(min(_read_uint32(each, 4), file_size) for each in _contents_of_types(track_boxes, b"stco", b"co64"))
    longest = 0
    for each in _contents_of_types(track_boxes, b"stsc"):
        count = min(_read_uint32(each, 4), (len(each) - 8) // 12)
        if count > 0:
            longest = max(longest, *(samples for _, samples, _ in struct.iter_unpack(">III", each[8 : 8 + 12 * count])))
    return chunks * (longest // _SAMPLES_AT_ONCE + 1)


def _count_implausible_run_samples(run_table: memoryview) -> int:
    """Return the samples of a run that take no bytes in the file, or more than fit into it."""
    flags, samples = _read_uint32(run_table, 0) & 0xFFFFFF, _read_uint32(run_table, 4)
    width = 4 * sum(bool(flags & flag) for flag in _COUNTS_OF_RUN)
    return samples if samples * width > len(run_table) or not width else 0


def _read_uint32(data: memoryview, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "big")
