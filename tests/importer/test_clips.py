"""Where a clip lies and what part of the video it shows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.importer.moments import LegacyClipWindow, clip_window, read_word_times, remote_clip_url
from app.importer.moments_file import LegacyMoment

_PATH = "clips/a talk/a talk_7621a017eec7482f_clip.mp4"


def make_moment(start: float = 100.0, end: float = 160.0, **values: Any) -> LegacyMoment:
    return LegacyMoment(1, "7621a017eec7482f", None, start, end, "A", False, **values)


@pytest.mark.parametrize(
    "url",
    [
        "https://storage.googleapis.com/films/clips/a%20talk/a%20talk_7621a017eec7482f_clip.mp4?X-Goog-Signature=x",
        "https://storage.cloud.google.com/films/clips/a%20talk/a%20talk_7621a017eec7482f_clip.mp4",
        "https://films.storage.googleapis.com/clips/a%20talk/a%20talk_7621a017eec7482f_clip.mp4?X-Goog-Signature=x",
        f"gs://films/{_PATH}",
    ],
)
@pytest.mark.parametrize("path", [_PATH, None])
def test_the_bucket_is_in_the_signed_url(url: str, path: str | None) -> None:
    assert remote_clip_url(make_moment(clip_path=path, clip_url=url), None) == f"gs://films/{_PATH}"


def test_a_bucket_that_is_given_comes_before_the_one_in_the_url() -> None:
    moment = make_moment(clip_path=_PATH, clip_url="https://storage.googleapis.com/films/x.mp4")
    assert remote_clip_url(moment, "other") == f"gs://other/{_PATH}"


def test_a_url_of_another_host_is_taken_without_its_query() -> None:
    moment = make_moment(clip_path=_PATH, clip_url="https://cdn.example/clips/a.mp4?token=x")
    assert remote_clip_url(moment, None) == "https://cdn.example/clips/a.mp4"


@pytest.mark.parametrize("values", [{}, {"clip_path": _PATH}, {"clip_path": "a\0b", "clip_url": "gs://films/x"}])
def test_a_clip_without_a_bucket_has_no_address(values: dict[str, Any]) -> None:
    assert remote_clip_url(make_moment(**values), None) is None


def test_a_url_that_is_none_is_no_harm() -> None:
    assert remote_clip_url(make_moment(clip_url="https://[broken"), None) == "https://[broken"


def test_the_window_of_a_refinement_is_the_clips() -> None:
    assert clip_window(make_moment(), [(69.9, 190.2), (1.0, 2.0)], [], None) == LegacyClipWindow(69.9, 190.2, True)


def test_a_window_ends_with_the_video() -> None:
    assert clip_window(make_moment(), [(69.9, 190.2)], [], 180.0) == LegacyClipWindow(69.9, 180.0, True)
    assert clip_window(make_moment(), [], [], 180.0) == LegacyClipWindow(70.0, 180.0)


def test_without_words_there_are_thirty_seconds_on_both_sides() -> None:
    assert clip_window(make_moment(), [], [], None) == LegacyClipWindow(70.0, 190.0)
    assert clip_window(make_moment(10.0, 20.0), [], [], None) == LegacyClipWindow(0.0, 50.0)


def test_words_draw_the_window_to_their_borders() -> None:
    words = [(68.0, 69.0), (70.4, 71.0), (150.0, 189.5), (189.6, 191.5), (200.0, 201.0)]
    assert clip_window(make_moment(), [], words, None) == LegacyClipWindow(70.4, 191.5)


def test_where_no_word_is_far_enough_the_first_and_the_last_count() -> None:
    assert clip_window(make_moment(), [], [(80.0, 81.0), (170.0, 171.0)], None) == LegacyClipWindow(80.0, 171.0)
    assert clip_window(make_moment(), [], [(50.0, 51.0)], None) == LegacyClipWindow(50.0, 51.0)


def test_a_window_that_would_be_inverted_is_plain() -> None:
    assert clip_window(make_moment(), [], [(5.0, 6.0), (200.0, 10.0)], None) == LegacyClipWindow(70.0, 190.0)


def test_words_without_times_are_passed_over() -> None:
    assert read_word_times([{"word": "a"}, {"start": 1, "end": None}, {"start": 1, "end": 2.5}]) == [(1.0, 2.5)]


_SECONDS = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    st.tuples(_SECONDS, _SECONDS).filter(lambda times: times[0] < times[1]),
    st.lists(st.tuples(_SECONDS, _SECONDS)),
    st.one_of(st.none(), st.floats(0, 1e6)),
)
def test_a_window_always_ends_after_it_starts(
    times: tuple[float, float], words: list[tuple[float, float]], duration: float | None
) -> None:
    window = clip_window(make_moment(*times), [], words, duration)
    assert window.start < window.end
