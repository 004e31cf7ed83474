"""The window around a moment: padded, aligned to words, inside the video, and around the moment whatever is said."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.protocols import Word
from app.database import Connection
from app.pipeline.transcripts import find_moment_window
from app.repositories.moments import MomentRepository
from tests.factories import make_moment, make_transcript, make_video

DURATION = 600.0


def say(*times: tuple[float, float]) -> list[Word]:
    return [Word("word", start, end) for start, end in times]


def say_each_second(count: int = 600) -> list[Word]:
    """A word from 0.25 to 0.75 of each second."""
    return say(*((second + 0.25, second + 0.75) for second in range(count)))


def span(words: list[Word], start: float, end: float, duration: float | None = DURATION) -> tuple[float, float]:
    window = find_moment_window(words, start, end, duration)
    return window.start, window.end


def test_a_window_begins_and_ends_with_words_30_seconds_away() -> None:
    assert span(say_each_second(), 100, 160) == (70.25, 190.75)


def test_a_window_begins_with_a_word_that_begins_at_the_very_second() -> None:
    assert span(say((70, 71), (190, 190.5), (191, 192)), 100, 160) == (70, 190.5)


def test_a_word_that_the_padding_would_cut_in_two_is_left_out_in_front_and_taken_whole_at_the_end() -> None:
    assert span(say((69.5, 70.5), (71, 72), (189.5, 190.5)), 100, 160) == (71, 190.5)


def test_a_window_never_begins_before_the_video() -> None:
    assert span(say_each_second(), 10, 40) == (0.25, 70.75)
    assert span([], 10, 40) == (0, 70)


def test_a_window_never_ends_behind_the_video() -> None:
    assert span([], 550, 590) == (520, 600)
    assert span(say((521, 522), (599, 601)), 550, 580) == (521, 600)


def test_a_window_behind_which_nothing_is_said_ends_with_the_last_word() -> None:
    assert span(say_each_second(180), 100, 160) == (70.25, 179.75)


def test_a_video_whose_duration_is_unknown_bounds_nothing() -> None:
    assert span([], 550, 590, None) == (520, 620)


def test_a_moment_is_never_cut_off_where_nothing_is_said() -> None:
    assert span(say((120, 121), (130, 131)), 100, 160) == (70, 190)
    assert span(say((5, 6), (7, 8)), 100, 160) == (70, 190)
    assert span(say((400, 401)), 100, 160) == (70, 401)


def test_a_window_has_the_words_that_lie_in_it_as_a_whole() -> None:
    words = say((69.5, 70.5), (71, 72), (100, 101), (189.5, 190.5), (190.6, 191))
    assert find_moment_window(words, 100, 160, DURATION).words == words[1:4]


def test_words_whose_times_run_backwards_are_found() -> None:
    words = say((98, 98.5), (99, 99.5), (100, 100.5), (97, 97.5), (98.2, 98.6), (170, 170.5))
    assert span(words, 127.5, 130) == (98, 170.5)


TIMES = st.floats(0, DURATION)
WORDS = st.lists(st.tuples(TIMES, st.floats(0, 3)).map(lambda at: Word("word", at[0], at[0] + at[1])), max_size=30)
MOMENTS = st.tuples(TIMES, st.floats(0.01, 120)).filter(lambda at: at[0] + at[1] <= DURATION)


@given(WORDS, MOMENTS)
def test_a_window_holds_its_moment_and_lies_in_the_video(words: list[Word], moment: tuple[float, float]) -> None:
    start, end = moment[0], sum(moment)
    window = find_moment_window(words, start, end, DURATION)
    assert 0 <= window.start <= start
    assert end <= window.end <= DURATION
    assert window.start >= start - 30


@given(WORDS, MOMENTS)
def test_a_window_cuts_no_word_unless_it_is_padded_plainly(words: list[Word], moment: tuple[float, float]) -> None:
    start, end = moment[0], sum(moment)
    window = find_moment_window(words, start, end, None)
    assert window.start in {max(0, start - 30), *(word.start for word in words)}
    assert window.end in {end + 30, *(word.end for word in words)}
    assert all(window.start <= word.start and word.end <= window.end for word in window.words)


@given(WORDS, MOMENTS, st.randoms())
def test_a_window_does_not_depend_on_the_order_of_words(
    words: list[Word], moment: tuple[float, float], chance: random.Random
) -> None:
    shuffled = chance.sample(words, len(words))
    start, end = moment[0], sum(moment)
    assert span(shuffled, start, end) == span(words, start, end)


@pytest.mark.parametrize(
    "words",
    [
        say_each_second(),
        say_each_second(180),
        say((69.5, 70.5), (71, 72), (100, 110), (189.5, 190.5), (191, 192)),
        # As it is where parts of ten minutes overlap in an older library.
        [*say_each_second(75), *say((68.5, 69.4), (70.1, 71.1)), *say_each_second(300)[71:]],
        say((69, 72), (191, 192), (75, 76), (190.2, 190.8)),
    ],
)
async def test_the_window_is_the_one_that_the_availability_of_a_clip_is_reported_by(
    conn: Connection, words: list[Word]
) -> None:
    video = await make_video(conn, duration_seconds=DURATION)
    moment = await make_moment(conn, video_id=video.id, start_time=100, end_time=160)
    stamps = [{"word": word.word, "start": word.start, "end": word.end} for word in words]
    await make_transcript(conn, video_id=video.id, word_timestamps=stamps)
    material = await MomentRepository(conn).get_clip_and_speech_times(video.identifier, moment.identifier, 30)
    assert material is not None
    assert (material.speech_start, material.speech_end) == span(words, 100, 160)
