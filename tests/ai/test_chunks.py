"""A long transcript in parts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.chat import chunk_segments
from app.ai.protocols import Segment


def talk(count: int, seconds: float = 5.0, characters: int = 88, shift: float = 0.0) -> list[Segment]:
    return [Segment("x" * characters, shift + n * seconds, shift + (n + 1) * seconds) for n in range(count)]


def test_a_transcript_that_fits_is_one_part() -> None:
    segments = talk(10)
    assert list(chunk_segments(segments, 30, 1000)) == [segments]


def test_neighbours_share_what_a_moment_may_take() -> None:
    parts = list(chunk_segments(talk(40), 30, 2000))
    assert all(len(part) == 20 for part in parts[:-1])
    for earlier, later in itertools.pairwise(parts):
        assert earlier[-1].end - later[0].start == pytest.approx(30)


def test_an_overlap_that_is_longer_than_a_part_still_comes_to_an_end() -> None:
    parts = list(chunk_segments(talk(40), 10_000, 1000))
    assert parts[-1][-1].start == 195
    assert len(parts) < 40


def test_a_segment_that_does_not_fit_is_a_part_of_its_own() -> None:
    segments = [*talk(2), Segment("y" * 5000, 10, 20), *talk(2, shift=20)]
    assert [segments[2]] in list(chunk_segments(segments, 0, 300))


def test_no_segments_are_no_parts() -> None:
    assert list(chunk_segments([], 30)) == []


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(50, 1000), st.integers(0, 200))
def test_every_segment_is_in_a_part_and_every_part_fits(lengths: list[int], most: int, overlap: int) -> None:
    segments = [Segment("x" * length, n * 3.0, n * 3.0 + 3) for n, length in enumerate(lengths)]
    parts = list(chunk_segments(segments, overlap, most))
    assert {segment.start for part in parts for segment in part} == {segment.start for segment in segments}
    for part in parts:
        assert len(part) == 1 or sum(len(segment.text) + 12 for segment in part) <= most
    starts = [part[0].start for part in parts]
    assert starts == sorted(set(starts))


@given(st.integers(0, 100_000))
def test_a_transcript_that_begins_later_is_split_at_the_same_places(shift: int) -> None:
    first = [[each.start + shift for each in part] for part in chunk_segments(talk(40), 30, 1500)]
    assert first == [[each.start for each in part] for part in chunk_segments(talk(40, shift=shift), 30, 1500)]
