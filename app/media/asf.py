"""The header of ASF files (WMV, WMA): the declared duration and length, and the size of the packets."""

from dataclasses import dataclass

HEADER_BYTES = 1024**2  # of which the header is the first part
_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_DATA_HEADER_BYTES = 50
_IS_BROADCAST = 1  # the lengths were not known when the header was written


@dataclass(frozen=True, slots=True)
class AsfHeader:
    """`seconds` and `data_end` are None where the header was written before they were known."""

    seconds: float | None
    data_start: int
    data_end: int | None
    packet_bytes: int


def read_asf_header(head: bytes) -> AsfHeader | None:
    """Return what the first bytes of a file say, None where they are not those of an ASF file."""
    properties, data = head.find(_PROPERTIES), head.find(_DATA)
    if properties < 0 or data < 0:
        return None

    def read_number(offset: int, length: int) -> int:
        return int.from_bytes(head[properties + offset : properties + offset + length], "little")

    seconds = read_number(64, 8) / 10_000_000 - read_number(80, 8) / 1000  # without the time for filling a buffer
    data_bytes = int.from_bytes(head[data + 16 : data + 24], "little")
    is_known = not read_number(88, 4) & _IS_BROADCAST
    return AsfHeader(
        seconds=seconds if is_known and seconds > 0 else None,
        data_start=data + _DATA_HEADER_BYTES,
        data_end=data + data_bytes if is_known and data_bytes > _DATA_HEADER_BYTES else None,
        packet_bytes=read_number(92, 4),
    )
