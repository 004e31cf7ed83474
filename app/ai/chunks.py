"""A long transcript in parts that fit into a model's context."""

from collections.abc import Iterator, Sequence

from app.ai.protocols import Segment

# Servers do not tell how much their models read. About four characters are a token, so these are 30,000 tokens: with an
# answer of 15,000 they fit into the 64,000 that models with long contexts read at least. Four hours are about 200,000.
MAX_CHARACTERS = 120_000

_LINE_CHARACTERS = 12  # of a line's time, brackets and end


def split_segments(
    segments: Sequence[Segment], overlap_seconds: float, max_characters: int = MAX_CHARACTERS
) -> Iterator[Sequence[Segment]]:
    """Yield runs of segments whose lines have at most so many characters; a single longer segment is one of its own.

    Neighbours share `overlap_seconds`, but never more than half of the first one, so that what happens at a border is
    whole in one of them.
    """
    start = 0
    while start < len(segments):
        end = _find_end(segments, start, max_characters)
        yield segments[start:end]
        if end == len(segments):
            return
        start = _find_next(segments, start, end, overlap_seconds)


def _find_end(segments: Sequence[Segment], start: int, max_characters: int) -> int:
    """Return the index behind the last segment that fits."""
    left = max_characters
    for index in range(start, len(segments)):
        left -= len(segments[index].text) + _LINE_CHARACTERS
        if left < 0:
            return max(index, start + 1)
    return len(segments)


def _find_next(segments: Sequence[Segment], start: int, end: int, overlap_seconds: float) -> int:
    shared = end
    earliest = max(start + 1, (start + end + 1) // 2)
    while shared > earliest and segments[shared - 1].start >= segments[end].start - overlap_seconds:
        shared -= 1
    return shared
