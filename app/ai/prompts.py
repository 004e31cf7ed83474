"""Prompts for language models: templates, their placeholders, and transcripts as lines of text."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from app.ai.protocols import FindRequest, PromptText, RefineRequest, Segment
from app.ai.registry import ModelConfig

PLACEHOLDERS = (
    "transcript",
    "user_prompt",
    "title",
    "start_time",
    "end_time",
    "clip_end",
    "duration",
    "min_moment_length",
    "max_moment_length",
    "min_moments",
    "max_moments",
)
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")


def fill_in_template(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def format_segments(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return segments as lines of start and text, as prompts for generation list them."""
    return "\n".join(f"[{segment['start']:.2f}] {segment['text']}" for segment in segments)


def format_words(words: Iterable[Mapping[str, Any]], time_range: tuple[float, float], offset: float) -> str:
    """Return the words inside `time_range` as lines of start, end and word, in seconds after `offset`."""
    start, end = time_range
    return "\n".join(
        f"[{word['start'] - offset:.2f}-{word['end'] - offset:.2f}] {word['word']}"
        for word in words
        if word["start"] >= start and word["end"] <= end
    )


DEFAULT_FIND_PROMPT = """\
Find the parts of this video that are most worth watching on their own: the interesting, useful or
surprising ones that somebody would pass on to a friend. Each of them should make sense to somebody who has seen nothing
else of the video, begin where a thought begins, end where it is complete, and be about a subject of its own. Look for
them in the whole of the video. Give each one a title of 5 to 15 words that says what it is about."""

DEFAULT_REFINE_PROMPT = """\
A moment is a part of a video that can be watched on its own. The times of the one below are only
roughly right. Find where it truly begins and ends: it begins with the first word of the sentence that opens it and ends
with the last word of the sentence that closes it, with nothing in between cut off and nothing of another subject kept.
Use the exact times of the words."""

_ONLY_JSON = """Your whole answer is one JSON object. Do not explain it, do not think aloud in it, and put it into no
code fence: its first character is { and its last one is }."""

_FIND_TEMPLATE = """\
How the transcript is written: one line for each thing said, its time in seconds from the beginning of the
video in brackets, then the words:
[seconds] words

Transcript:
{transcript}

What to answer: a JSON object with one list, the best moment first. Each moment has exactly these three fields:
{"moments": [{"start_time": <seconds>, "end_time": <seconds>, "title": "<text>"}]}
Times are plain numbers of seconds, as in the transcript. Write nothing before or after the object. Where there is no
such moment, the list is empty.

Rules:
- The video takes {duration} seconds. No start_time is below 0.00, and no end_time is above {duration}.
- A moment takes between {min_moment_length} and {max_moment_length} seconds.
- Give between {min_moments} and {max_moments} moments.
- Moments do not overlap."""

_CLIP_NOTE = """\
The clip that comes with this text is the part of the video that the words below are from: look at it and
listen to it, too. Its time 0.00 is that of the words."""

_REFINE_TASK = """The moment:
- title: "{title}"
- it begins at {start_time} seconds now
- it ends at {end_time} seconds now
- the words below end at {clip_end} seconds"""

_REFINE_TEMPLATE = """\
How the words are written: one line for each word, when it begins and ends in brackets, in seconds from the
beginning of this part of the video, then the word:
[start-end] word

Words:
{transcript}

What to answer: a JSON object with exactly these two fields:
{"start_time": <seconds>, "end_time": <seconds>}
Both are plain numbers in the time of the words, start_time is below end_time, and end_time is at most {clip_end}. Write
nothing before or after the object."""

_JSON_REMINDER = "Remember: the answer is the JSON object alone, and nothing comes before or after it."

_NUMBER_SCHEMA = {"type": "number"}

FIND_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "moments": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"start_time": _NUMBER_SCHEMA, "end_time": _NUMBER_SCHEMA, "title": {"type": "string"}},
                "required": ["start_time", "end_time", "title"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["moments"],
    "additionalProperties": False,
}
REFINE_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {"start_time": _NUMBER_SCHEMA, "end_time": _NUMBER_SCHEMA},
    "required": ["start_time", "end_time"],
    "additionalProperties": False,
}


def build_find_prompt(key: str, config: ModelConfig, user_prompt: str) -> PromptText:
    return _assemble_prompt(key, config, user_prompt.strip() or DEFAULT_FIND_PROMPT, ["{user_prompt}", _FIND_TEMPLATE])


def build_refine_prompt(key: str, config: ModelConfig, user_prompt: str, *, with_clip: bool) -> PromptText:
    sections = [*([_CLIP_NOTE] if with_clip else []), _REFINE_TASK, "{user_prompt}", _REFINE_TEMPLATE]
    return _assemble_prompt(key, config, user_prompt.strip() or DEFAULT_REFINE_PROMPT, sections)


def _assemble_prompt(key: str, config: ModelConfig, user_prompt: str, sections: list[str]) -> PromptText:
    """Add the reminders that some model families need: Qwen at the beginning, MiniMax at the end."""
    if _is_model_family("qwen", key, config):
        sections = [_ONLY_JSON, *sections]
    if _is_model_family("minimax", key, config):
        sections = [*sections, _JSON_REMINDER]
    return PromptText(user_prompt, "\n\n".join(sections))


def _is_model_family(family: str, key: str, config: ModelConfig) -> bool:
    return family in f"{key} {config.model_id or ''}".lower()


def render_find_prompt(prompt: PromptText, request: FindRequest, segments: Iterable[Segment]) -> str:
    values = {
        "user_prompt": prompt.user_prompt,
        "transcript": format_segments(map(asdict, segments)),
        "duration": f"{request.duration_seconds:.2f}",
        "min_moment_length": f"{request.min_length:.2f}",
        "max_moment_length": f"{request.max_length:.2f}",
        "min_moments": str(request.min_count),
        "max_moments": str(request.max_count),
    }
    return fill_in_template(prompt.system_prompt, values)


def render_refine_prompt(prompt: PromptText, request: RefineRequest) -> str:
    offset = request.window_start
    values = {
        "user_prompt": prompt.user_prompt,
        "title": request.moment.title,
        "start_time": f"{request.moment.start - offset:.2f}",
        "end_time": f"{request.moment.end - offset:.2f}",
        "clip_end": f"{request.window_end - offset:.2f}",
        "transcript": format_words(map(asdict, request.words), (request.window_start, request.window_end), offset),
    }
    return fill_in_template(prompt.system_prompt, values)
