"""What a model proposes, held against the video and the limits."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.protocols import FindRequest, FoundMoment, RefineRequest
from app.ai.validation import choose_moments, place_times, read_moment

REQUEST = FindRequest((), (), 100.0, 10.0, 40.0, 1, 3)


def item(start: Any, end: Any, title: Any = "One") -> dict[str, Any]:
    return {"start_time": start, "end_time": end, "title": title}


def moment(start: float, end: float, title: str = "One") -> FoundMoment:
    return FoundMoment(start, end, title)


def test_a_moment_within_all_limits_is_one() -> None:
    assert read_moment(item("5", 25.5, " One "), REQUEST) == moment(5.0, 25.5)


@pytest.mark.parametrize(("start", "end"), [(0, 10), (0, 40), (60, 100), (90, 100)])
def test_the_limits_themselves_are_within_them(start: float, end: float) -> None:
    assert read_moment(item(start, end), REQUEST) == moment(start, end)


def test_noise_of_floats_and_the_rounding_of_prompts_do_no_harm() -> None:
    assert read_moment(item(0.1 + 0.2, 10.3 - 1e-9), REQUEST) == moment(0.1 + 0.2, 10.3 - 1e-9)
    assert read_moment(item(80, 67.73 + 20), replace(REQUEST, duration_seconds=87.7286, min_length=5)) == moment(
        80.0, 87.7286
    )
    assert read_moment(item(-0.001, 20), REQUEST) == moment(0.0, 20.0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (item(0, 9.9), "takes 9.90 seconds, and at least 10.00"),
        (item(0, 40.1), "takes 40.10 seconds, and at most 40.00"),
        (item(-1, 20), "within the video"),
        (item(80, 101), "within the video"),
        (item(500, 530), "within the video"),
        (item(20, 20), "end after it starts"),
        (item(30, 10), "end after it starts"),
        (item("70s", "00:01:30"), "plain numbers"),
        (item(float("nan"), 20), "plain numbers"),
        (item(0, float("inf")), "plain numbers"),
        (item(10**400, 10**401), "plain numbers"),
        ({"start_time": 0, "title": "One"}, "plain numbers"),
        ({"start_time": 0, "end_time": 20}, "no title"),
        (item(0, 20, ""), "no title"),
        (item(0, 20, None), "no title"),
        ("text", "not an object"),
        (None, "not an object"),
    ],
)
def test_what_cannot_be_a_moment_is_told_with_its_reason(value: Any, reason: str) -> None:
    told = read_moment(value, REQUEST)
    assert isinstance(told, str)
    assert reason in told


def test_of_moments_that_overlap_the_one_the_model_put_first_stays() -> None:
    ranked = [moment(30, 50, "B"), moment(10, 31, "A"), moment(50, 70, "C"), moment(69, 80, "D")]
    assert [each.title for each in choose_moments(ranked, 10)] == ["B", "C"]


def test_moments_above_the_number_asked_for_are_the_models_last_ones() -> None:
    ranked = [moment(60, 70, "C"), moment(0, 10, "A"), moment(5, 15, "overlaps"), moment(30, 40, "B"), moment(80, 90)]
    assert [each.title for each in choose_moments(ranked, 3)] == ["A", "B", "C"]


def test_moments_that_touch_do_not_overlap() -> None:
    assert len(choose_moments([moment(0, 10.1 + 0.2), moment(10.3, 20)], 5)) == 2


_TIMES = st.floats(allow_nan=True) | st.integers(-10, 110) | st.sampled_from(["5", "70s", None])
_ITEMS = st.builds(item, _TIMES, _TIMES) | st.none()


@given(st.lists(_ITEMS, max_size=20))
def test_whatever_is_proposed_what_is_left_keeps_every_rule(items: list[Any]) -> None:
    read = [read_moment(each, REQUEST) for each in items]
    kept = choose_moments([each for each in read if isinstance(each, FoundMoment)], REQUEST.max_count)
    assert len(kept) <= REQUEST.max_count
    assert all(0 <= each.start < each.end <= REQUEST.duration_seconds for each in kept)
    assert all(9.98 <= each.end - each.start <= 40.01 for each in kept)
    assert all(one.end <= other.start + 1e-6 for one, other in itertools.pairwise(kept))


WINDOW = RefineRequest(moment(110, 140), (), 80.0, 170.0, 165.0)


def test_times_of_a_window_become_those_of_the_video() -> None:
    assert place_times(29.5, 61.0, WINDOW) == (109.5, 141.0)


def test_the_end_of_a_window_beyond_the_video_is_that_of_the_video() -> None:
    assert place_times(29.5, 90.0, WINDOW) == (109.5, 165.0)


@pytest.mark.parametrize(("start", "end"), [(5, 5), (7, 5), (-1, 5), (5, 91), (110, 140), (87, 89)])
def test_times_outside_the_window_or_the_video_are_refused(start: float, end: float) -> None:
    assert isinstance(place_times(start, end, WINDOW), str)


@given(st.floats(0, 59), st.floats(0.01, 30), st.integers(0, 100_000))
def test_a_window_that_lies_later_moves_the_answer_by_as_much_once(start: float, length: float, shift: int) -> None:
    later = replace(WINDOW, window_start=80.0 + shift, window_end=170.0 + shift, duration_seconds=1e6)
    placed = place_times(start, start + length, later)
    assert placed == pytest.approx((80 + shift + start, 80 + shift + start + length))
