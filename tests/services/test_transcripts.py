"""Captions: the times of the cues, and what the formats make of a text."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.services.transcripts import (
    CaptionCue,
    format_cues_as_srt,
    format_cues_as_text,
    format_cues_as_vtt,
    make_caption_cues,
)

_CLOCK = r"(\d{2,}):([0-5]\d):([0-5]\d)[,.](\d{3})"
_TIMING = re.compile(f"{_CLOCK} --> {_CLOCK}")

seconds = st.floats(0, 400_000) | st.integers(0, 100) | st.floats() | st.none() | st.just("5")
segments = st.lists(
    st.fixed_dictionaries({"text": st.text() | st.sampled_from(["a --> b", "<b>&amp;", "1", "", " \r\n\n2"])})
    | st.fixed_dictionaries({"text": st.text("ab", min_size=1), "start": seconds, "end": seconds}),
    max_size=30,
)


def segments_read(*times: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"text": f"{number}", "start": start, "end": end} for number, (start, end) in enumerate(times)]


def times_of(*times: tuple[float, float]) -> list[tuple[int, int]]:
    return [(cue.start, cue.end) for cue in make_caption_cues(segments_read(*times))]


def read_srt(text: str) -> list[CaptionCue]:
    """What a player understands: blocks between blank lines, of a number, a timing line and the text."""
    cues = []
    for number, block in enumerate(filter(None, text.split("\n\n")), start=1):
        counter, timing, *lines = block.removesuffix("\n").split("\n")
        assert int(counter) == number
        cues.append(_cue(timing, lines))
    return cues


def read_vtt(text: str) -> list[CaptionCue]:
    header, *blocks = text.removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for block in blocks:
        timing, *lines = block.split("\n")
        assert not any("-->" in line or "<" in line for line in lines)
        plain = [line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for line in lines]
        cues.append(_cue(timing, plain))
    return cues


def _cue(timing: str, lines: list[str]) -> CaptionCue:
    found = _TIMING.fullmatch(timing)
    assert found
    numbers = [int(number) for number in found.groups()]
    start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))
    (line,) = lines
    assert line.isprintable() or line
    return CaptionCue(start, end, line)


@given(segments)
@example([{"text": "a", "start": 1.0, "end": float("nan")}, {"text": "b", "start": -5.0, "end": 1e300}])
def test_whatever_is_stored_both_formats_read_back_as_the_same_cues_in_order(segments: list[dict[str, Any]]) -> None:
    cues = make_caption_cues(segments)
    shown = [segment for segment in segments if re.search(r"[^\s\x00-\x1f\x7f-\x9f]", segment["text"])]
    assert len(cues) == len(shown)
    assert all(cue.start < cue.end for cue in cues)
    assert all(first.end <= second.start for first, second in pairwise(cues))
    assert read_srt(format_cues_as_srt(cues)) == read_vtt(format_cues_as_vtt(cues)) == cues
    assert format_cues_as_text(cues).split("\n")[:-1] == [cue.text for cue in cues]


@given(st.lists(st.integers(1, 10_000), max_size=40))
def test_valid_times_are_kept(lengths: list[int]) -> None:
    borders = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    assert times_of(*((start / 1000, end / 1000) for start, end in pairwise(borders))) == list(pairwise(borders))


def test_nothing_starts_before_the_video() -> None:
    assert times_of((-5.0, 2.0), (-1.0, 3.0)) == [(0, 1500), (1500, 3000)]


def test_an_overlap_ends_the_first_cue_where_the_second_starts() -> None:
    assert times_of((0.0, 5.0), (3.0, 6.0)) == [(0, 3000), (3000, 6000)]


def test_a_cue_without_length_is_shown_for_a_second_where_there_is_room() -> None:
    assert times_of((1.0, 1.0), (5.0, 5.0), (5.5, 6.0)) == [(1000, 2000), (5000, 5500), (5500, 6000)]


def test_cues_that_start_together_share_the_time() -> None:
    assert times_of((4.0, 6.0), (4.0, 7.0), (9.0, 9.5)) == [(4000, 5500), (5500, 7000), (9000, 9500)]


def test_times_that_run_backwards_at_a_border_are_put_in_order_and_the_others_stay() -> None:
    times = times_of((590.0, 595.0), (595.0, 598.0), (598.0, 600.0), (592.0, 597.0), (600.5, 602.0), (602.0, 604.0))
    assert times[-2:] == [(600_500, 602_000), (602_000, 604_000)]
    assert times[0] == (590_000, 595_000)
    assert [start for start, _ in times] == [590_000, 595_000, 596_666, 598_333, 600_500, 602_000]


def test_one_outlier_moves_no_other_cue() -> None:
    times = times_of((1.0, 2.0), (90_000.0, 90_001.0), (2.5, 3.0), (3.0, 4.0))
    assert times[0] == (1000, 2000)
    assert times[3] == (3000, 4000)


def test_more_cues_than_there_are_milliseconds_push_the_next_ones_on() -> None:
    times = times_of(*[(1.0, 1.0)] * 1500, (1.001, 1.002), (9.0, 9.5))
    assert times[1499:] == [(2499, 2500), (2500, 3500), (9000, 9500)]


def test_hours_have_as_many_digits_as_they_need() -> None:
    cues = make_caption_cues(segments_read((5 * 3600 + 61.5, 5 * 3600 + 62), (123 * 3600, 123 * 3600 + 1)))
    assert "05:01:01,500 --> 05:01:02,000\n" in format_cues_as_srt(cues)
    assert "123:00:00.000 --> 123:00:01.000\n" in format_cues_as_vtt(cues)


def test_a_text_is_one_line_without_controls() -> None:
    (cue,) = make_caption_cues([{"text": " one\r\n\r\n\ttwo\x00\x1b[31m\u2028three ", "start": 0.0, "end": 1.0}])
    assert cue.text == "one two [31m three"


def test_markup_is_escaped_where_the_format_has_markup() -> None:
    cues = [CaptionCue(0, 1, "<i>R&D --> 'x' \"y\"")]
    assert format_cues_as_vtt(cues).endswith("\n&lt;i&gt;R&amp;D --&gt; 'x' \"y\"\n")
    assert format_cues_as_srt(cues).endswith("\n<i>R&D --> 'x' \"y\"\n")


def test_a_transcript_without_speech_is_a_valid_empty_file() -> None:
    assert (format_cues_as_srt([]), format_cues_as_vtt([]), format_cues_as_text([])) == ("", "WEBVTT\n", "")


@pytest.mark.parametrize("stored", [None, 5, "text", {}, [None, 5, [], {}, {"text": 5}, {"text": "  "}]], ids=str)
def test_a_segment_without_text_is_no_cue(stored: Any) -> None:
    assert make_caption_cues(stored) == []


def test_a_segment_without_times_follows_the_one_before() -> None:
    cues = make_caption_cues(
        [{"text": "a", "start": 1.0, "end": 2.0}, {"text": "b"}, {"text": "c", "start": 8.0, "end": 9.0}]
    )
    assert [(cue.start, cue.end) for cue in cues] == [(1000, 2000), (2000, 3000), (8000, 9000)]
