"""What is read from whatever a language model answers with."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.answers import Unreadable, read_moments, read_seconds, read_times, read_title

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
    assert read_moments(text) == [ONE, TWO]


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
    assert read_moments(f"{thought}{BOTH}") == [ONE, TWO]


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
    assert read_moments(text) == [ONE, TWO]


def test_of_a_truncated_list_every_complete_moment_is_recovered() -> None:
    assert read_moments(CUT) == [ONE]
    assert read_moments(f'{{"moments": {CUT}') == [ONE]


def test_nothing_is_made_up_for_a_moment_that_is_cut_off() -> None:
    assert read_moments(f'[{json.dumps(ONE)}, {{"title": "Two", "start_time": 50, "end_time": 9') == [ONE]


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
    assert read_moments(f"[{broken}, {json.dumps(TWO)}]") == [ONE, TWO]


def test_a_time_that_no_repair_can_know_is_none() -> None:
    text = '[{"start_time": 00:01:00, "end_time": 00:02:00, "title": "One"}, ' + json.dumps(TWO) + "]"
    assert read_moments(text) == [TWO]


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
    assert read_moments(json.dumps({"model": "x", "tags": ["a"], name: [ONE, TWO]})) == [ONE, TWO]


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
    with pytest.raises(Unreadable):
        read_moments(text)


@pytest.mark.parametrize("text", ["[]", '{"moments": []}', "```json\n[]\n```", "<think>Hm [1].</think>[]", "None: []"])
def test_an_empty_list_says_that_there_are_no_moments(text: str) -> None:
    assert read_moments(text) == []


@pytest.mark.parametrize("text", ['{"error": "overloaded"}', '{"moments": [], "error": {"code": 500}}'])
def test_an_error_does_not_say_that_there_are_no_moments(text: str) -> None:
    with pytest.raises(Unreadable, match="AI model error: "):
        read_moments(text)


@pytest.mark.parametrize(
    ("value", "seconds"), [(1, 1.0), (35.5, 35.5), ("35.5", 35.5), (" 7 ", 7.0), ("-1", -1.0), (0, 0.0)]
)
def test_numbers_are_read_also_where_they_are_text(value: Any, seconds: float) -> None:
    assert read_seconds(value) == seconds


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
    assert read_seconds(value) is None


def test_nan_in_an_answer_is_no_time() -> None:
    items = read_moments('[{"start_time": NaN, "end_time": Infinity, "title": "One"}]')
    assert [read_seconds(items[0][name]) for name in ("start_time", "end_time")] == [None, None]


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
    assert read_title(value) == title


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
    assert read_times(text) == (1.5, 7.25)


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
    with pytest.raises(Unreadable):
        read_times(text)


def test_the_error_that_a_model_tells_is_told() -> None:
    with pytest.raises(Unreadable, match="AI model error: no speech"):
        read_times('{"error": "no speech"}')


_JUNK = st.text(st.sampled_from('[]{}",: `<think>/ast_rime0123456789NaN\\'), max_size=80)


@given(st.lists(_JUNK | st.sampled_from([BOTH, CUT, REFINED, SCHEMA, "```", "<think>", "</think>"])).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_moments, read_times):
        try:
            read(text)
        except Unreadable as error:
            assert str(error)  # noqa: PT017  the reason is told to the model
