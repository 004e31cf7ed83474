"""Prompts as templates, and rows of every form that the previous backend wrote."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.prompts import fill_in_template, format_segments, format_words
from app.importer.legacy_files import UnreadableFile, read_json_file
from app.importer.moments_file import (
    LegacyMoment,
    ParsedMoments,
    PromptTemplate,
    extract_prompt_template,
    parse_moments,
)
from app.importer.report import EntryKind, FileReporter, ReportEntry
from tests.importer.legacy import (
    SEGMENTS,
    WORDS,
    generation_prompt,
    make_config,
    make_refined,
    make_refinement_config,
    make_row,
    refinement_prompt,
)

_USER = "Find what people will talk about."
_ROW = make_row()


def test_the_transcript_is_not_in_the_template() -> None:
    template = extract_prompt_template(generation_prompt(_USER), _USER)
    assert "Transcript segments:\n{transcript}\n\nTHE ANSWER:" in template.text
    assert template.values["transcript"] == format_segments(SEGMENTS)
    assert not any(segment["text"] in template.text for segment in SEGMENTS)


def test_the_words_of_a_refinement_are_not_in_the_template() -> None:
    template = extract_prompt_template(refinement_prompt(_USER, _ROW), _USER)
    assert "Word-level transcript:\n{transcript}\n\nTHE ANSWER:" in template.text
    assert template.values["transcript"] == format_words(WORDS, (0.0, 6.9), 0.0)


def test_the_example_above_the_transcript_stays() -> None:
    assert (
        "Example:\n[1.00] This is how it looks\n[2.50] and so it goes on\n"
        in extract_prompt_template(generation_prompt(_USER, SEGMENTS[:1]), _USER).text
    )


@pytest.mark.parametrize("prompt", [generation_prompt(_USER), refinement_prompt(_USER, _ROW)])
def test_a_template_rendered_with_its_values_is_the_prompt_again(prompt: str) -> None:
    template = extract_prompt_template(prompt, _USER)
    assert fill_in_template(template.text, template.values) == prompt


def test_values_of_the_call_get_names() -> None:
    generation = dict(extract_prompt_template(generation_prompt(_USER), _USER).values)
    refinement = dict(extract_prompt_template(refinement_prompt(_USER, _ROW), _USER).values)
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
    assert extract_prompt_template(first, _USER).text == extract_prompt_template(second, "Another task.").text


def test_the_word_none_of_a_missing_user_prompt_stays_as_it_was_sent() -> None:
    template = extract_prompt_template(refinement_prompt(None, _ROW), "")
    assert "\n\nNone\n\n" in template.text
    assert "user_prompt" not in template.values


def test_a_user_prompt_is_found_as_a_paragraph_and_not_inside_a_word() -> None:
    template = extract_prompt_template("A task: start.\n\na\n\nTranscript segments:\n[0.00] so", "a")
    assert template.text == "A task: start.\n\n{user_prompt}\n\nTranscript segments:\n{transcript}"


def test_what_looks_like_a_constraint_inside_the_transcript_is_transcript() -> None:
    prompt = 'Transcript segments:\n[0.00] - Title: "x"\n[1.00] y\n\n- Title: "z"'
    template = extract_prompt_template(prompt, "")
    assert template.text == 'Transcript segments:\n{transcript}\n\n- Title: "{title}"'
    assert template.values["title"] == "z"


def test_a_second_value_of_one_name_stays_in_the_text() -> None:
    template = extract_prompt_template("- Video duration: 5.00 seconds\n- All end_time values must be <= 6.00", "")
    assert template.text == "- Video duration: {duration} seconds\n- All end_time values must be <= 6.00"


def test_a_prompt_that_speaks_of_a_placeholder_stays_whole() -> None:
    prompt = "Put {transcript} here.\n\nTranscript segments:\n[0.00] so"
    assert extract_prompt_template(prompt, "") == PromptTemplate(prompt, {})


def test_a_prompt_of_another_layout_stays_whole() -> None:
    assert extract_prompt_template("Cut it well.", "") == PromptTemplate("Cut it well.", {})


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
    template = extract_prompt_template(prompt, user_prompt)
    assert fill_in_template(template.text, template.values) == prompt


@given(st.text(), st.text())
def test_any_text_is_rendered_back(prompt: str, user_prompt: str) -> None:
    template: Any = extract_prompt_template(prompt, user_prompt)
    assert fill_in_template(template.text, template.values) == prompt


def read(*rows: Any, folder: Path) -> tuple[ParsedMoments, list[ReportEntry]]:
    path = folder / "talk.json"
    path.write_text(json.dumps(list(rows)))
    reporter = FileReporter("moments/talk.json", "talk")
    return parse_moments(read_json_file(path), reporter), reporter.entries


def read_one(row: Any, folder: Path) -> tuple[LegacyMoment, dict[str, Any]]:
    """Return the moment, and what of the row was dropped."""
    file, entries = read(row, folder=folder)
    assert [entry.kind for entry in entries] in ([], [EntryKind.DROPPED])
    return file.moments[0], entries[0].content if entries else {}


def test_a_row_is_read(tmp_path: Path) -> None:
    row = make_row(12.5, 40.25, title="Zwei Fragen – eine Antwort")
    moment, _ = read_one(row, tmp_path)
    assert (moment.start_time, moment.end_time, moment.title) == (12.5, 40.25, "Zwei Fragen – eine Antwort")
    assert (moment.legacy_id, moment.is_refined, moment.legacy_parent) == (row["id"], False, None)
    assert moment.model == "/srv/models/large"
    assert moment.config is not None
    assert (moment.config.model, moment.config.temperature, moment.config.operation_type) == (
        "large_fp8",
        0.7,
        "generation",
    )
    assert (moment.config.min_moment_length, moment.config.max_moments) == (30.0, 3)


def test_a_row_of_the_oldest_form_has_only_times_and_a_title(tmp_path: Path) -> None:
    moment, dropped = read_one({"start_time": 1.0, "end_time": 2.0, "title": "A"}, tmp_path)
    assert moment == LegacyMoment(1, None, None, 1.0, 2.0, "A", False)
    assert dropped == {}


def test_a_row_added_by_hand_has_no_config(tmp_path: Path) -> None:
    moment, _ = read_one(make_row(model_name=None, generation_config=None), tmp_path)
    assert (moment.model, moment.config) == (None, None)


def test_float_noise_and_titles_are_kept_as_they_are(tmp_path: Path) -> None:
    moment, _ = read_one(make_row(1227.6000000000001, 1300.0, title="  spaced  "), tmp_path)
    assert (moment.start_time, moment.title) == (1227.6000000000001, "  spaced  ")


@pytest.mark.parametrize(("start", "end"), [(1, 2), ("1", "2.0"), (-3.5, 2)])
def test_times_may_be_whole_numbers_or_text_or_negative(tmp_path: Path, start: Any, end: Any) -> None:
    moment, _ = read_one(make_row(1, 2) | {"start_time": start, "end_time": end}, tmp_path)
    assert (moment.start_time, moment.end_time) == (float(start), 2.0)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"end_time": math.nan}, "no finite number"),
        ({"start_time": -math.inf}, "no finite number"),
        ({"start_time": None}, "no finite number"),
        ({"start_time": "00:01"}, "no finite number"),
        ({"start_time": True}, "no finite number"),
        ({"end_time": 10**400}, "no finite number"),
        ({"end_time": 10.0}, "not greater"),
        ({"end_time": 9.0}, "not greater"),
        ({"title": None}, "no text"),
        ({"title": "x" * 501}, "500 characters"),
        ({"title": "a\0b"}, "U+0000"),
        ({"title": "a\ud800b"}, "surrogate"),
        ({"id": "a\0"}, "U+0000"),
        ({"is_refined": "yes"}, "neither true nor false"),
    ],
)
def test_a_row_that_cannot_be_stored_is_refused_with_its_content(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    file, entries = read(make_row(), make_row(10.0, 40.0) | values, folder=tmp_path)
    (refused,) = (entry for entry in entries if entry.kind is EntryKind.REFUSED)
    assert [moment.row for moment in file.moments] == [1]
    assert reason in refused.reason
    assert refused.row == 2
    assert set(refused.content) == set(make_row())


@pytest.mark.parametrize("row", [None, 5, "text", ["a"]])
def test_a_row_that_is_no_object_is_refused(tmp_path: Path, row: Any) -> None:
    file, entries = read(row, folder=tmp_path)
    assert file.moments == []
    assert [(entry.kind, entry.content) for entry in entries] == [(EntryKind.REFUSED, row)]


def test_a_file_that_is_no_list_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "talk.json").write_text('{"moments": []}')
    with pytest.raises(UnreadableFile, match="no list"):
        parse_moments(read_json_file(tmp_path / "talk.json"), FileReporter(None, None))


def test_what_has_no_column_is_in_the_report(tmp_path: Path) -> None:
    config = make_refinement_config(make_row(), left_padding=3.5)
    _, dropped = read_one(
        make_refined(make_row(), 11, 30, remote_clip_path="/srv/c.mp4", generation_config=config), tmp_path
    )
    assert dropped["remote_clip_path"] == "/srv/c.mp4"
    of_config = dropped["generation_config"]
    assert (of_config["padding"], of_config["left_padding"], of_config["video_included"]) == (30.0, 3.5, False)


def test_what_a_prompt_states_and_no_column_holds_is_in_the_report(tmp_path: Path) -> None:
    _, generated = read_one(make_row(), tmp_path)
    _, refined = read_one(make_refined(make_row(), 11, 30), tmp_path)
    assert generated["generation_config"]["complete_prompt"] == {"duration": "67.73"}
    assert refined["generation_config"]["complete_prompt"] == {
        "title": "A question",
        "start_time": "10.00",
        "end_time": "40.00",
        "clip_end": "6.90",
    }


def test_the_copy_of_the_prompt_in_old_rows_is_dropped_in_silence_and_another_text_is_not(tmp_path: Path) -> None:
    config = make_config()
    _, copy = read_one(make_row(prompt=config["complete_prompt"], generation_config=config), tmp_path)
    _, other = read_one(make_row(prompt="Another text.", generation_config=config), tmp_path)
    assert "prompt" not in copy
    assert other["prompt"] == "Another text."


def test_a_signature_is_not_in_the_report(tmp_path: Path) -> None:
    url = "https://storage.googleapis.com/b/clips/a.mp4"
    moment, dropped = read_one(make_row(clip_signed_url=f"{url}?X-Goog-Signature=abc"), tmp_path)
    assert dropped["clip_signed_url"] == url
    assert moment.clip_url == f"{url}?X-Goog-Signature=abc"


def test_a_missing_user_prompt_is_empty(tmp_path: Path) -> None:
    config = make_refinement_config(make_row(), user_prompt=None)
    moment, _ = read_one(make_refined(make_row(), 11, 30, generation_config=config), tmp_path)
    assert moment.config is not None
    assert moment.config.user_prompt == ""
    assert "\nNone\n" in moment.config.system_prompt


@pytest.mark.parametrize(
    ("config", "model", "expected"),
    [({}, "/srv/m", "/srv/m"), ({"model": None}, None, "unknown"), ({"model": "key"}, "/srv/m", "key")],
)
def test_a_config_without_a_model_has_the_name_that_the_model_gave_itself(
    tmp_path: Path, config: dict[str, Any], model: str | None, expected: str
) -> None:
    moment, _ = read_one(make_row(model_name=model, generation_config=config), tmp_path)
    assert moment.config is not None
    assert moment.config.model == expected


@pytest.mark.parametrize(("is_refined", "expected"), [(False, "generation"), (True, "refinement")])
def test_a_config_without_an_operation_has_that_of_its_row(tmp_path: Path, is_refined: bool, expected: str) -> None:
    moment, _ = read_one(make_row(is_refined=is_refined, generation_config={"model": "key"}), tmp_path)
    assert moment.config is not None
    assert moment.config.operation_type == expected


@pytest.mark.parametrize(
    "config",
    ["text", {"model": "x" * 101}, {"operation_type": "x" * 51}, {"complete_prompt": 5}, {"user_prompt": "a\0"}],
)
def test_a_config_that_cannot_be_stored_leaves_its_moment_without_one(tmp_path: Path, config: Any) -> None:
    moment, dropped = read_one(make_row(generation_config=config), tmp_path)
    assert moment.config is None
    assert dropped["generation_config"]["content"] == config


def test_a_parameter_that_cannot_be_stored_is_null_and_in_the_report(tmp_path: Path) -> None:
    config = make_config(temperature=math.nan, min_moments=2.5, max_moments=10**12)
    moment, dropped = read_one(make_row(generation_config=config), tmp_path)
    assert moment.config is not None
    assert (moment.config.temperature, moment.config.min_moments, moment.config.max_moments) == (None, None, None)
    assert {"temperature", "min_moments", "max_moments"} <= set(dropped["generation_config"])


def test_a_model_name_that_is_too_long_is_dropped_and_the_moment_stays(tmp_path: Path) -> None:
    moment, dropped = read_one(make_row(model_name="x" * 101), tmp_path)
    assert moment.model is None
    assert dropped["model_name"] == "x" * 101


def test_the_window_of_a_refinement_is_read(tmp_path: Path) -> None:
    moment, _ = read_one(make_refined(make_row(), 11, 30), tmp_path)
    assert moment.window == (0.0, 6.9)


def test_a_prompt_that_repeats_in_every_row_becomes_one_config(tmp_path: Path) -> None:
    file, _ = read(make_row(0, 30), make_row(30, 60), folder=tmp_path)
    first, second = (moment.config for moment in file.moments)
    assert first == second
    assert len(file.prompt_transcripts) == 2
