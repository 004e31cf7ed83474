"""A prompt as a template: the transcript goes out, and nothing of the prompt's own words does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.prompts import format_segments, format_words, render_template
from app.importer.moments_file import PromptTemplate, make_template
from tests.importer.legacy import SEGMENTS, WORDS, generation_prompt, make_row, refinement_prompt

_USER = "Find what people will talk about."
_ROW = make_row()


def test_the_transcript_is_not_in_the_template() -> None:
    template = make_template(generation_prompt(_USER), _USER)
    assert "Transcript segments:\n{transcript}\n\nTHE ANSWER:" in template.text
    assert template.values["transcript"] == format_segments(SEGMENTS)
    assert not any(segment["text"] in template.text for segment in SEGMENTS)


def test_the_words_of_a_refinement_are_not_in_the_template() -> None:
    template = make_template(refinement_prompt(_USER, _ROW), _USER)
    assert "Word-level transcript:\n{transcript}\n\nTHE ANSWER:" in template.text
    assert template.values["transcript"] == format_words(WORDS, (0.0, 6.9), 0.0)


def test_the_example_above_the_transcript_stays() -> None:
    assert (
        "Example:\n[1.00] This is how it looks\n[2.50] and so it goes on\n"
        in make_template(generation_prompt(_USER, SEGMENTS[:1]), _USER).text
    )


@pytest.mark.parametrize("prompt", [generation_prompt(_USER), refinement_prompt(_USER, _ROW)])
def test_a_template_rendered_with_its_values_is_the_prompt_again(prompt: str) -> None:
    template = make_template(prompt, _USER)
    assert render_template(template.text, template.values) == prompt


def test_values_of_the_call_get_names() -> None:
    generation = dict(make_template(generation_prompt(_USER), _USER).values)
    refinement = dict(make_template(refinement_prompt(_USER, _ROW), _USER).values)
    del generation["transcript"], refinement["transcript"]
    assert generation == {
        "user_prompt": _USER,
        "duration": "67.73",
        "min_moment_length": "30.00",
        "max_moment_length": "90.00",
        "min_moments": "1",
        "max_moments": "3",
    }
    assert refinement == {
        "user_prompt": _USER,
        "title": "A question",
        "start_time": "10.00",
        "end_time": "40.00",
        "clip_end": "6.90",
    }


def test_calls_of_one_kind_share_their_template() -> None:
    other = make_row(1.0, 2.0, title="An answer")
    first, second = refinement_prompt(_USER, _ROW), refinement_prompt("Another task.", other, WORDS[:5])
    assert make_template(first, _USER).text == make_template(second, "Another task.").text


def test_the_word_none_of_a_missing_user_prompt_stays_as_it_was_sent() -> None:
    template = make_template(refinement_prompt(None, _ROW), "")
    assert "\n\nNone\n\n" in template.text
    assert "user_prompt" not in template.values


def test_a_user_prompt_is_found_as_a_paragraph_and_not_inside_a_word() -> None:
    template = make_template("A task: start.\n\na\n\nTranscript segments:\n[0.00] so", "a")
    assert template.text == "A task: start.\n\n{user_prompt}\n\nTranscript segments:\n{transcript}"


def test_what_looks_like_a_constraint_inside_the_transcript_is_transcript() -> None:
    prompt = 'Transcript segments:\n[0.00] - Title: "x"\n[1.00] y\n\n- Title: "z"'
    template = make_template(prompt, "")
    assert template.text == 'Transcript segments:\n{transcript}\n\n- Title: "{title}"'
    assert template.values["title"] == "z"


def test_a_second_value_of_one_name_stays_in_the_text() -> None:
    template = make_template("- Video duration: 5.00 seconds\n- All end_time values must be <= 6.00", "")
    assert template.text == "- Video duration: {duration} seconds\n- All end_time values must be <= 6.00"


def test_a_prompt_that_speaks_of_a_placeholder_stays_whole() -> None:
    prompt = "Put {transcript} here.\n\nTranscript segments:\n[0.00] so"
    assert make_template(prompt, "") == PromptTemplate(prompt, {})


def test_a_prompt_of_another_layout_stays_whole() -> None:
    assert make_template("Cut it well.", "") == PromptTemplate("Cut it well.", {})


def test_words_outside_the_clip_are_not_listed_and_times_begin_at_its_start() -> None:
    words = [{"word": word, "start": start, "end": start + 0.5} for word, start in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    assert format_words(words, (2.0, 3.0), 2.0) == "[0.00-0.50] b"


_LINES = st.sampled_from(
    [
        "[0.10] so",
        "[0.10-0.20] so",
        "Example:",
        "",
        "{title}",
        "{{transcript}}",
        "Cut it.",
        '- Title: "A {duration}"',
        '- Title: "B"',
        "- Video duration: 5.00 seconds",
        "- The clip ends at 5.00 seconds",
        "- Number of moments: Between 1 and 3",
    ]
)


@given(st.lists(_LINES).map("\n".join), st.sampled_from(["", "Cut it.", "{title}", "[0.10] so"]))
def test_whatever_the_prompt_nothing_of_it_is_lost(prompt: str, user_prompt: str) -> None:
    template = make_template(prompt, user_prompt)
    assert render_template(template.text, template.values) == prompt


@given(st.text(), st.text())
def test_any_text_is_rendered_back(prompt: str, user_prompt: str) -> None:
    template: Any = make_template(prompt, user_prompt)
    assert render_template(template.text, template.values) == prompt
