"""Parsing of `Range` headers."""

import pytest

from app.api.conditional_requests import ByteRange, parse_ranges


def parsed(header: str, size: int = 1000) -> list[tuple[int, int]] | None:
    ranges = parse_ranges(header, size)
    return None if ranges is None else [(each.start, each.stop) for each in ranges]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", [(0, 100)]),
        ("bytes=0-0", [(0, 1)]),
        ("bytes=999-", [(999, 1000)]),
        ("bytes=0-", [(0, 1000)]),
        ("bytes=-500", [(500, 1000)]),
        ("bytes=-5000", [(0, 1000)]),
        ("bytes=900-99999999999999999999999999", [(900, 1000)]),
        ("Bytes=0000-0009", [(0, 10)]),
        ("bytes= 0-9 ,\t20-29", [(0, 10), (20, 30)]),
        ("bytes=,,0-9,", [(0, 10)]),
    ],
)
def test_a_range_is_clamped_to_the_file(header: str, expected: list[tuple[int, int]]) -> None:
    assert parsed(header) == expected


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-1010", "bytes=-0", "bytes=9999999999999999999999-"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    assert parsed(header) == []


def test_of_several_ranges_those_that_can_be_satisfied_are_sent() -> None:
    assert parsed("bytes=5000-, 0-9, -0") == [(0, 10)]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=abc",
        "bytes=-",
        "bytes=100-50",
        "bytes=0-9, 100-50",
        "bytes=100-99",
        "bytes=1.5-2",
        "bytes=+1-2",
        "bytes=0x0-0x9",
        "bytes=٠-٩",  # noqa: RUF001 - digits that int() takes
        "bytes=0-9-20",
        "bytes 0-9",
        "items=0-9",
        "seconds=0-9",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_what_is_no_range_of_bytes_is_ignored(header: str) -> None:
    assert parsed(header) is None


def test_overlapping_ranges_send_no_byte_twice() -> None:
    assert parsed("bytes=0-,0-,0-,0-") == [(0, 1000)]
    assert parsed("bytes=500-599, 0-9, 10-19, 550-700") == [(0, 20), (500, 701)]
    assert parsed("bytes=0-99, 10-19") == [(0, 100)]


def test_ranges_that_do_not_overlap_keep_their_order() -> None:
    assert parsed("bytes=500-509, 0-9, -1") == [(500, 510), (0, 10), (999, 1000)]


def test_more_than_twenty_ranges_are_ignored() -> None:
    ranges = [f"{start}-{start}" for start in range(0, 210, 10)]
    assert parsed("bytes=" + ",".join(ranges[:20])) == [(start, start + 1) for start in range(0, 200, 10)]
    assert parsed("bytes=" + ",".join(ranges)) is None


def test_a_header_of_more_than_a_thousand_characters_is_ignored() -> None:
    header = f"bytes=0-{'9':0>992}"
    assert parsed(header) == [(0, 10)]
    assert parsed(header + " ") is None


def test_an_empty_file_has_no_ranges() -> None:
    assert parsed("bytes=0-", size=0) is None
    assert parsed("bytes=-5", size=0) is None


def test_the_size_of_a_range_is_its_number_of_bytes() -> None:
    assert ByteRange(10, 25).size == 15
