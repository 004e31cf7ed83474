"""What a `Range` header asks for: RFC 9110, section 14."""

import re
from dataclasses import dataclass

# A player asks for one range at a time. What asks for more than this wants to make work.
_MOST_RANGES = 20
# It also keeps each number below the digits that `int` reads.
_LONGEST_HEADER = 1000

_HEADER = re.compile(r"bytes=(.*)", re.IGNORECASE)
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def parse_ranges(header: str, size: int) -> list[ByteRange] | None:
    """Return the ranges of a file of `size` bytes, of which no two overlap; none where none can be satisfied.

    None where the whole file is the answer: for another unit, a malformed header, too many ranges, and an empty file,
    of which there is no part.
    """
    match = _HEADER.fullmatch(header)
    if match is None or size == 0 or len(header) > _LONGEST_HEADER:
        return None
    specs = [spec for spec in map(str.strip, match[1].split(",")) if spec]
    if not 0 < len(specs) <= _MOST_RANGES:
        return None
    try:
        ranges = [_parse_range(spec, size) for spec in specs]
    except ValueError:
        return None
    return _merge([found for found in ranges if found is not None])


def _parse_range(spec: str, size: int) -> ByteRange | None:
    """Return None for a range behind the file's end. Raises `ValueError` for what is no range."""
    match = _RANGE.fullmatch(spec)
    if match is None or spec == "-":
        raise ValueError
    first, last = match[1], match[2]
    if not first:
        length = min(int(last), size)
        return ByteRange(size - length, size) if length else None
    start, stop = int(first), int(last) + 1 if last else size
    if stop <= start and last:
        raise ValueError
    return ByteRange(start, min(stop, size)) if start < size else None


def _merge(ranges: list[ByteRange]) -> list[ByteRange]:
    """Join what overlaps or touches, so that no byte is sent twice; ranges that do not, keep their order."""
    merged: list[ByteRange] = []
    for each in sorted(ranges):
        if merged and each.start <= merged[-1].stop:
            merged[-1] = ByteRange(merged[-1].start, max(merged[-1].stop, each.stop))
        else:
            merged.append(each)
    return ranges if len(merged) == len(ranges) else merged
