"""Detection of files that end inside a packet, as after a broken transfer, for each container format.

Only certain signs count: recordings of live streams are whole and end after any packet without a trailer, and Ogg files
of some phones lack the end-of-stream flag.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO, Final

from app.media.container import ReadLimitedFile
from app.media.truncation import ASF_HEADER_BYTES, has_unknown_riff_size, read_asf_header

_TAIL_BYTES: Final = 1024**2  # searched for the last packets
_MAX_PACKETS: Final = 2_000_000  # walked over in a whole file: some hours
_MIN_SYNC_COUNT: Final = 5  # headers at the right distances are no coincidence

_OGG_HEADER_BYTES, _OGG_PAGE_BYTES, _OGG_START = 27, 27 + 255 + 255 * 255, b"OggS\0"
_TS_SYNC, _TS_LENGTHS = 0x47, (188, 192, 204)
_PS_START, _PS_PACK, _PS_END = b"\0\0\1", 0xBA, 0xB9
_FLV_HEADER_BYTES, _FLV_TAGS = 11, (8, 9, 18)
_MATROSKA_SEGMENT, _MATROSKA_CLUSTER = 0x18538067, 0x1F43B675
_MATROSKA_BLOCKS = frozenset({_MATROSKA_CLUSTER, 0xA3, 0xA0, 0xAF})
# The other elements of a file, of a segment and of a cluster.
_MATROSKA_METADATA = frozenset(
    {0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469}
    | {0xE7, 0xAB, 0xA7, 0x5854, 0xEC, 0xBF}
)
_ASF_INDEX = bytes.fromhex("90080033b1e5cf1189f400a0c90349cb")
_AVI_PACKET = re.compile(rb"\d\d(?:dc|db|wb|pc|tx)|ix\d\d")
_MXF_START, _MXF_ESSENCE, _MXF_FILL = bytes.fromhex("060e2b34"), bytes.fromhex("0d010301"), bytes.fromhex("03010210")
_MXF_INDEX = bytes.fromhex("060e2b34020501010d01020101110100")  # the random index pack, the last of a file
_AUDIO_HEADER_BYTES = 6
_GIF_TABLE, _GIF_EXTENSION, _GIF_IMAGE = 0x80, 0x21, 0x2C


def ends_inside_packet(file: BinaryIO, size: int, container_format: str) -> bool:
    """Return whether a file of `size` bytes ends inside a packet; False if its format does not show it."""
    check = _TRUNCATION_CHECKS.get(container_format)
    return check is not None and check(file, size)


def lacks_mxf_index(file: BinaryIO | ReadLimitedFile, size: int) -> bool:
    """Return whether an MXF file was truncated, or written without its random index pack."""
    tail = _read_tail(file, size, 4096)
    return not tail[-int.from_bytes(tail[-4:], "big") :].startswith(_MXF_INDEX)


def _read_bytes_at(file: BinaryIO | ReadLimitedFile, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def _read_tail(file: BinaryIO | ReadLimitedFile, size: int, length: int = _TAIL_BYTES) -> bytes:
    return _read_bytes_at(file, max(size - length, 0), length)


def _ends_inside_ogg_page(file: BinaryIO, size: int) -> bool:
    tail = _read_tail(file, size, 2 * _OGG_PAGE_BYTES)
    page = tail[tail.rfind(_OGG_START) :] if _OGG_START in tail else b""
    segments = page[_OGG_HEADER_BYTES - 1] if len(page) >= _OGG_HEADER_BYTES else 0
    body = _OGG_HEADER_BYTES + segments
    rest = page[body + sum(page[_OGG_HEADER_BYTES:body]) :]
    if not page or rest:
        return bool(page) and _OGG_START.startswith(rest)
    return len(page) < body + sum(page[_OGG_HEADER_BYTES:body])


def _ends_inside_ts_packet(file: BinaryIO, size: int) -> bool:
    tail = _read_tail(file, size, 4096)
    for length in _TS_LENGTHS:
        lead = 4 if length == 192 else 0  # each packet follows a time of arrival
        for left in range(length):  # bytes after the last whole packet
            last = len(tail) - left - length + lead
            if last < 0 or {
                tail[last - back] for back in range(0, min(_MIN_SYNC_COUNT * length, last + 1), length)
            } != {_TS_SYNC}:
                continue
            next_byte = tail[last + length : last + length + 1]
            return left > 0 and next_byte in (b"", bytes([_TS_SYNC]))
    return False


def _ends_inside_ps_packet(file: BinaryIO, size: int) -> bool:
    tail = _read_tail(file, size)
    position = tail.rfind(_PS_START + bytes([_PS_PACK]))
    while 0 <= position < len(tail):
        head = tail[position : position + 14]
        if len(head) < 4 or head[:3] != _PS_START or head[3] <= _PS_END:
            return False
        position += _read_ps_pack_length(head) if head[3] == _PS_PACK else 6 + int.from_bytes(head[4:6], "big")
    return position > len(tail)


def _read_ps_pack_length(head: bytes) -> int:
    """Return the length of a pack header of MPEG-1 or MPEG-2, stuffing included."""
    if len(head) > 4 and head[4] >> 6 != 1:
        return 12
    return 14 + (head[13] & 7 if len(head) > 13 else 0)


def _ends_inside_flv_tag(file: BinaryIO, size: int) -> bool:
    position = int.from_bytes(_read_bytes_at(file, 5, 4), "big") + 4
    for _ in range(_MAX_PACKETS):
        head = _read_bytes_at(file, position, 4)
        if len(head) < 4 or head[0] & 0x1F not in _FLV_TAGS:
            return len(head) > 0 and head[0] & 0x1F in _FLV_TAGS
        position += _FLV_HEADER_BYTES + int.from_bytes(head[1:4], "big")
        if position > size:
            return True
        position += 4  # the length of the tag is repeated
    return False


def _ends_inside_matroska_block(file: BinaryIO, size: int) -> bool:
    position = 0
    for _ in range(_MAX_PACKETS):
        head = _read_bytes_at(file, position, 12)
        kind, kind_bytes = _read_ebml_number(head, True)
        length, length_bytes = _read_ebml_number(head[kind_bytes:], False)
        is_unknown = length == (1 << 7 * length_bytes) - 1
        if (
            not kind_bytes
            or not length_bytes
            or kind not in _MATROSKA_METADATA | _MATROSKA_BLOCKS | {_MATROSKA_SEGMENT}
        ):
            return False
        position += kind_bytes + length_bytes
        if kind == _MATROSKA_SEGMENT or (kind == _MATROSKA_CLUSTER and is_unknown):
            continue  # descend into it
        position += length
        if position > size:
            return kind in _MATROSKA_BLOCKS and not is_unknown
    return False


def _read_ebml_number(head: bytes, keeps_mark: bool) -> tuple[int, int]:
    """Return a variable-length number and its length in bytes, (0, 0) if it is incomplete."""
    length = 9 - head[0].bit_length() if head and head[0] else 0
    if len(head) < length:
        return 0, 0
    number = int.from_bytes(head[:length], "big")
    return (number if keeps_mark else number & ((1 << 7 * length) - 1)), length


def _ends_inside_mp4_box(file: BinaryIO, size: int) -> bool:
    position = 0
    for _ in range(_MAX_PACKETS):
        head = _read_bytes_at(file, position, 16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if len(head) < 8 or length < 8:
            return False
        position += length
        if position > size:
            return kind in (b"mdat", b"moof")
    return False


def _ends_inside_asf_packet(file: BinaryIO, size: int) -> bool:
    header = read_asf_header(_read_bytes_at(file, 0, ASF_HEADER_BYTES))
    if header is None or not header.packet_bytes:
        return False
    if header.data_end is not None:
        return header.data_end > size
    tail = _read_tail(file, size)
    index = tail.rfind(_ASF_INDEX)
    end = size - len(tail) + index if index >= 0 else size
    return (end - header.data_start) % header.packet_bytes != 0


def _ends_inside_avi_chunk(file: BinaryIO, size: int) -> bool:
    if not has_unknown_riff_size(_read_bytes_at(file, 0, 8)):
        return False  # the header declares the length
    position = 12
    for _ in range(_MAX_PACKETS):
        head = _read_bytes_at(file, position, 12)
        kind, length = head[:4], int.from_bytes(head[4:8], "little")
        if len(head) < 8:
            return False
        is_list = kind == b"LIST" and head[8:] in (b"movi", b"rec ")
        position += 12 if is_list else 8 + length + length % 2
        if position > size + length % 2:
            return _AVI_PACKET.fullmatch(kind) is not None
    return False


def _ends_inside_mxf_packet(file: BinaryIO, size: int) -> bool:
    if not lacks_mxf_index(file, size):
        return False
    position, is_in_essence = 0, False
    for _ in range(_MAX_PACKETS):
        head = _read_bytes_at(file, position, 25)
        if len(head) < 17 or not head.startswith(_MXF_START):
            return False
        if head[8:12] != _MXF_FILL:
            is_in_essence = head[8:12] == _MXF_ESSENCE
        length_bytes = head[16] & 0x7F if head[16] & 0x80 else 0
        length = int.from_bytes(head[17 : 17 + length_bytes], "big") if length_bytes else head[16]
        position += 17 + length_bytes + length
        if position > size:
            return is_in_essence
    return False


def _ends_inside_gif_block(file: BinaryIO, size: int) -> bool:
    head = _read_bytes_at(file, 0, 13)
    position = 13 + _gif_colour_table_bytes(head[10])
    while position < size:
        head = _read_bytes_at(file, position, 10)
        if head[0] not in (_GIF_EXTENSION, _GIF_IMAGE):
            return False
        blocks = 2 if head[0] == _GIF_EXTENSION else 11 + _gif_colour_table_bytes(head[-1])
        position = _find_end_of_gif_blocks(file, position + blocks, size)
    return position > size


def _gif_colour_table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & _GIF_TABLE else 0


def _find_end_of_gif_blocks(file: BinaryIO, position: int, size: int) -> int:
    while position < size and (length := _read_bytes_at(file, position, 1)[0]):
        position += 1 + length
    return position + 1


def _ends_inside_audio_frame(sync: bytes, read_length: Callable[[bytes], int], file: BinaryIO, size: int) -> bool:
    tail = _read_tail(file, size, 64 * 1024)
    for first in range(len(tail)):
        position, number = first, 0
        while length := read_length(tail[position : position + _AUDIO_HEADER_BYTES]):
            position, number = position + length, number + 1
        if number >= _MIN_SYNC_COUNT:
            rest = tail[position:]
            return position > len(tail) or (rest[:1] == sync and len(rest) < _AUDIO_HEADER_BYTES)
    return False


def _read_adts_frame_length(head: bytes) -> int:
    """Return the length in bytes of an ADTS frame (AAC), 0 if none begins here."""
    if len(head) < _AUDIO_HEADER_BYTES or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def _read_ac3_frame_length(head: bytes) -> int:
    """Return the length in bytes of an AC-3 or E-AC-3 frame, 0 if none begins here."""
    if len(head) < _AUDIO_HEADER_BYTES or head[:2] != b"\x0b\x77":
        return 0
    if head[5] >> 3 > 10:
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    code = head[4] & 0x3F
    if code >= 2 * len(_AC3_RATES):
        return 0
    rate = _AC3_RATES[code // 2]
    return 2 * (rate * 2, rate * 320 // 147 + code % 2, rate * 3, 0)[head[4] >> 6]


_AC3_RATES: Sequence[int] = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_TRUNCATION_CHECKS: Final[dict[str, Callable[[BinaryIO, int], bool]]] = {
    "ogg": _ends_inside_ogg_page,
    "mpegts": _ends_inside_ts_packet,
    "mpeg": _ends_inside_ps_packet,
    "flv": _ends_inside_flv_tag,
    "mkv": _ends_inside_matroska_block,
    "webm": _ends_inside_matroska_block,
    **dict.fromkeys(("mp4", "mov", "m4a", "3gp", "3g2", "mj2"), _ends_inside_mp4_box),
    "asf": _ends_inside_asf_packet,
    "avi": _ends_inside_avi_chunk,
    "mxf": _ends_inside_mxf_packet,
    "gif": _ends_inside_gif_block,
    "aac": partial(_ends_inside_audio_frame, b"\xff", _read_adts_frame_length),
    "ac3": partial(_ends_inside_audio_frame, b"\x0b", _read_ac3_frame_length),
}
