"""What language models answer: lists in many wrappings, times and titles, held against the request."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.model_output import (
    UnusableOutput,
    parse_moment_title,
    parse_moments,
    parse_refined_times,
    parse_seconds,
    select_moments,
    to_moment_or_rejection_reason,
    window_to_video_times_or_reason,
)
from app.ai.protocols import FindRequest, FoundMoment, RefineRequest

ONE = {"start_time": 1, "end_time": 35.5, "title": "One"}
TWO = {"start_time": 50, "end_time": 90, "title": "Two"}
BOTH = json.dumps([ONE, TWO])
CUT = BOTH[:-15]  # in the middle of the second title
SCHEMA = '{"type": "object", "properties": {"moments": {"type": "array"}}, "required": ["moments"]}'


@pytest.mark.parametrize(
    "text",
    [
        BOTH,
        f"  \n{BOTH}\n ",
        f"```json\n{BOTH}\n```",
        f"```\n{BOTH}\n```",
        f"```JSON {BOTH}```",
        json.dumps([ONE, TWO], indent=4),
    ],
    ids=["plain", "white space", "fence", "fence without json", "fence on one line", "indented"],
)
def test_a_plain_list_or_one_in_a_fence_is_read(text: str) -> None:
    assert parse_moments(text) == [ONE, TWO]


@pytest.mark.parametrize(
    "thought",
    [
        "<think>Let me see [1, 2].</think>",
        "<THINK>Let me see.</Think>\n",
        '<think effort="high" id=3>Let me see.</think>',
        "<think>a <think>b</think> [] c</think>",
        '<think>Perhaps [{"start_time": 7, "end_time": 8, "title": "Draft"}]?</think>',
        "<think>One.</think><think>Two.</think>",
        "<thinking>Let me see.</thinking>",
    ],
    ids=["plain", "capitals", "attributes", "nested", "with a draft", "twice", "thinking"],
)
def test_a_thought_before_the_answer_is_removed(thought: str) -> None:
    assert parse_moments(f"{thought}{BOTH}") == [ONE, TWO]


@pytest.mark.parametrize(
    "text",
    [
        f"Here are the moments:\n{BOTH}",
        f"{BOTH}\nI hope that helps [somewhat].",
        f"Here [as asked]:\n```json\n{BOTH}\n```\nEnjoy!",
        f"<think>Let me see. {BOTH}",
        f"<think>Perhaps [{json.dumps(ONE)}]? No, better: {BOTH}",
        f"Let me see.</think>{BOTH}",
        BOTH.replace("}]", "},]"),
        f'{{"moments": {BOTH}',
        f"{SCHEMA}\n{BOTH}",
        f"{json.dumps(ONE)}\n{json.dumps(TWO)}",
        f'{{"answer": broken, "moments": {BOTH}}}',
    ],
    ids=[
        "lead",
        "trailing prose",
        "fence in prose",
        "unclosed thought",
        "unclosed thought with a draft",
        "only a closing tag",
        "trailing comma",
        "truncated object around the list",
        "schema before it",
        "one object a line",
        "known name in what is not JSON",
    ],
)
def test_what_is_wrapped_in_something_else_is_recovered(text: str) -> None:
    assert parse_moments(text) == [ONE, TWO]


def test_of_a_truncated_list_every_complete_moment_is_recovered() -> None:
    assert parse_moments(CUT) == [ONE]
    assert parse_moments(f'{{"moments": {CUT}') == [ONE]


def test_nothing_is_made_up_for_a_moment_that_is_cut_off() -> None:
    assert parse_moments(f'[{json.dumps(ONE)}, {{"title": "Two", "start_time": 50, "end_time": 9') == [ONE]


@pytest.mark.parametrize(
    "broken",
    [
        '{"start_time": 1, "end_time": 35.5, "title": "One",}',
        '{"start_time": 1 "end_time": 35.5, "title": "One"}',
        '{"start_time": 1, "end_time": 35.5, "title": "One}',
    ],
    ids=["comma too many", "comma missing", "quote missing"],
)
def test_a_complete_moment_that_is_not_quite_json_is_repaired(broken: str) -> None:
    assert parse_moments(f"[{broken}, {json.dumps(TWO)}]") == [ONE, TWO]


def test_a_time_that_no_repair_can_know_is_none() -> None:
    text = '[{"start_time": 00:01:00, "end_time": 00:02:00, "title": "One"}, ' + json.dumps(TWO) + "]"
    assert parse_moments(text) == [TWO]


@pytest.mark.parametrize(
    "name",
    [
        "moments",
        "output",
        "final_output",
        "response",
        "final_json",
        "json_output",
        "final_json_output",
        "final",
        "clips",
        "Anything else",
    ],
)
def test_a_list_under_a_known_name_or_of_moments_is_that_list(name: str) -> None:
    assert parse_moments(json.dumps({"model": "x", "tags": ["a"], name: [ONE, TWO]})) == [ONE, TWO]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ONE),
        "42",
        "null",
        "true",
        '"text"',
        "[{'start_time': 1, 'end_time': 35.5, 'title': 'One'}]",
        "",
        " \n",
        "<think>Nothing else.</think>",
        "I am sorry, I cannot do that.",
        SCHEMA,
        '{"moments": [',
        '{"moments": "none"}',
        "[" * 100_000,
        "{" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
    ],
)
def test_what_holds_no_list_of_moments_is_an_error(text: str) -> None:
    with pytest.raises(UnusableOutput):
        parse_moments(text)


@pytest.mark.parametrize("text", ["[]", '{"moments": []}', "```json\n[]\n```", "<think>Hm [1].</think>[]", "None: []"])
def test_an_empty_list_says_that_there_are_no_moments(text: str) -> None:
    assert parse_moments(text) == []


@pytest.mark.parametrize("text", ['{"error": "overloaded"}', '{"moments": [], "error": {"code": 500}}'])
def test_an_error_does_not_say_that_there_are_no_moments(text: str) -> None:
    with pytest.raises(UnusableOutput, match="AI model error: "):
        parse_moments(text)


@pytest.mark.parametrize(
    ("value", "seconds"), [(1, 1.0), (35.5, 35.5), ("35.5", 35.5), (" 7 ", 7.0), ("-1", -1.0), (0, 0.0)]
)
def test_numbers_are_read_also_where_they_are_text(value: Any, seconds: float) -> None:
    assert parse_seconds(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "70s",
        "00:01:00",
        "1:00",
        "",
        "nan",
        "1e400",
        "1_000",
        "1,5",
        None,
        True,
        [],
        {},
        10**400,
        float("nan"),
        float("inf"),
        float("-inf"),
    ],
)
def test_what_is_no_finite_number_of_seconds_is_none(value: Any) -> None:
    assert parse_seconds(value) is None


def test_nan_in_an_answer_is_no_time() -> None:
    items = parse_moments('[{"start_time": NaN, "end_time": Infinity, "title": "One"}]')
    assert [parse_seconds(items[0][name]) for name in ("start_time", "end_time")] == [None, None]


@pytest.mark.parametrize(
    ("value", "title"),
    [
        ("  One \n two\t", "One two"),
        ("", ""),
        (None, ""),
        ("None", "None"),
        (7, "7"),
        ("a\x00b", "ab"),
        ("\x1b]0;Intro\x07 \x9b31m\r\n\u202eand\u2028more\u2066", "]0;Intro 31m and more"),
        ("a\ud800b", "a?b"),
        ("x" * 600, "x" * 500),
    ],
)
def test_a_title_is_one_line_of_text_that_can_be_stored(value: Any, title: str) -> None:
    assert parse_moment_title(value) == title


REFINED = '{"start_time": 1.5, "end_time": "7.25"}'


@pytest.mark.parametrize(
    "text",
    [
        REFINED,
        f"[{REFINED}]",
        f"```json\n{REFINED}\n```",
        f'<think>{{"start_time": 3}}</think>{REFINED}',
        f"The exact times are {REFINED}, I think.",
        f"Look at {{this}}: {REFINED}",
        REFINED.replace("}", ', "reason": {"word": "so"}}'),
    ],
    ids=["plain", "list", "fence", "thought", "prose", "other braces", "nested"],
)
def test_times_of_a_refinement_are_read(text: str) -> None:
    assert parse_refined_times(text) == (1.5, 7.25)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[1.5, 7.25]",
        '{"start_time": 1.5, "end_time": 7',
        '[{"start_time": 1.5, "end_time": 7',
        '{"start_time": 1.5}',
        '{"start_time": null, "end_time": 7.25}',
        '{"start_time": NaN, "end_time": 7.25}',
        '{"start_time": "1s", "end_time": "7s"}',
        "It is fine as it is.",
    ],
)
def test_a_refinement_without_two_times_is_an_error(text: str) -> None:
    with pytest.raises(UnusableOutput):
        parse_refined_times(text)


def test_the_error_that_a_model_reports_is_reported() -> None:
    with pytest.raises(UnusableOutput, match="AI model error: no speech"):
        parse_refined_times('{"error": "no speech"}')


_JUNK = st.text(st.sampled_from('[]{}",: `<think>/ast_rime0123456789NaN\\'), max_size=80)


@given(st.lists(_JUNK | st.sampled_from([BOTH, CUT, REFINED, SCHEMA, "```", "<think>", "</think>"])).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_moments, parse_refined_times):
        try:
            read(text)
        except UnusableOutput as error:
            assert str(error)  # noqa: PT017  the reason is reported to the model


REQUEST = FindRequest((), (), 100.0, 10.0, 40.0, 1, 3)


def item(start: Any, end: Any, title: Any = "One") -> dict[str, Any]:
    return {"start_time": start, "end_time": end, "title": title}


def moment(start: float, end: float, title: str = "One") -> FoundMoment:
    return FoundMoment(start, end, title)


def test_a_moment_within_all_limits_is_one() -> None:
    assert to_moment_or_rejection_reason(item("5", 25.5, " One "), REQUEST) == moment(5.0, 25.5)


@pytest.mark.parametrize(("start", "end"), [(0, 10), (0, 40), (60, 100), (90, 100)])
def test_the_limits_themselves_are_within_them(start: float, end: float) -> None:
    assert to_moment_or_rejection_reason(item(start, end), REQUEST) == moment(start, end)


def test_noise_of_floats_and_the_rounding_of_prompts_do_no_harm() -> None:
    assert to_moment_or_rejection_reason(item(0.1 + 0.2, 10.3 - 1e-9), REQUEST) == moment(0.1 + 0.2, 10.3 - 1e-9)
    assert to_moment_or_rejection_reason(
        item(80, 67.73 + 20), replace(REQUEST, duration_seconds=87.7286, min_length=5)
    ) == moment(80.0, 87.7286)
    assert to_moment_or_rejection_reason(item(-0.001, 20), REQUEST) == moment(0.0, 20.0)


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
def test_what_cannot_be_a_moment_is_reported_with_its_reason(value: Any, reason: str) -> None:
    reports = to_moment_or_rejection_reason(value, REQUEST)
    assert isinstance(reports, str)
    assert reason in reports


def test_of_moments_that_overlap_the_one_the_model_put_first_stays() -> None:
    ranked = [moment(30, 50, "B"), moment(10, 31, "A"), moment(50, 70, "C"), moment(69, 80, "D")]
    assert [each.title for each in select_moments(ranked, 10)] == ["B", "C"]


def test_moments_above_the_number_asked_for_are_the_models_last_ones() -> None:
    ranked = [moment(60, 70, "C"), moment(0, 10, "A"), moment(5, 15, "overlaps"), moment(30, 40, "B"), moment(80, 90)]
    assert [each.title for each in select_moments(ranked, 3)] == ["A", "B", "C"]


def test_moments_that_touch_do_not_overlap() -> None:
    assert len(select_moments([moment(0, 10.1 + 0.2), moment(10.3, 20)], 5)) == 2


_TIMES = st.floats(allow_nan=True) | st.integers(-10, 110) | st.sampled_from(["5", "70s", None])
_ITEMS = st.builds(item, _TIMES, _TIMES) | st.none()


@given(st.lists(_ITEMS, max_size=20))
def test_whatever_is_proposed_what_is_left_keeps_every_rule(items: list[Any]) -> None:
    read = [to_moment_or_rejection_reason(each, REQUEST) for each in items]
    kept = select_moments([each for each in read if isinstance(each, FoundMoment)], REQUEST.max_count)
    assert len(kept) <= REQUEST.max_count
    assert all(0 <= each.start < each.end <= REQUEST.duration_seconds for each in kept)
    assert all(9.98 <= each.end - each.start <= 40.01 for each in kept)
    assert all(one.end <= other.start + 1e-6 for one, other in itertools.pairwise(kept))


WINDOW = RefineRequest(moment(110, 140), (), 80.0, 170.0, 165.0)


def test_times_of_a_window_become_those_of_the_video() -> None:
    assert window_to_video_times_or_reason(29.5, 61.0, WINDOW) == (109.5, 141.0)


def test_the_end_of_a_window_beyond_the_video_is_that_of_the_video() -> None:
    assert window_to_video_times_or_reason(29.5, 90.0, WINDOW) == (109.5, 165.0)


@pytest.mark.parametrize(("start", "end"), [(5, 5), (7, 5), (-1, 5), (5, 91), (110, 140), (87, 89)])
def test_times_outside_the_window_or_the_video_are_refused(start: float, end: float) -> None:
    assert isinstance(window_to_video_times_or_reason(start, end, WINDOW), str)


@given(st.floats(0, 59), st.floats(0.01, 30), st.integers(0, 100_000))
def test_a_window_that_lies_later_moves_the_answer_by_as_much_once(start: float, length: float, shift: int) -> None:
    later = replace(WINDOW, window_start=80.0 + shift, window_end=170.0 + shift, duration_seconds=1e6)
    placed = window_to_video_times_or_reason(start, start + length, later)
    assert placed == pytest.approx((80 + shift + start, 80 + shift + start + length))
