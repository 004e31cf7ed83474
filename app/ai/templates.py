"""Prompts as templates: a name in braces for whatever changes by call, and the lines that transcripts are shown as."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

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


def render(text: str, values: Mapping[str, str]) -> str:
    """Return a template's text with the values in it. A placeholder without a value stays."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def segment_lines(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return segments as prompts for generation list them: their start and their text."""
    return "\n".join(f"[{segment['start']:.2f}] {segment['text']}" for segment in segments)


def word_lines(words: Iterable[Mapping[str, Any]], clip: tuple[float, float], offset: float) -> str:
    """Return the words inside `clip` as prompts for refinement list them, `offset` being their second zero."""
    start, end = clip
    return "\n".join(
        f"[{word['start'] - offset:.2f}-{word['end'] - offset:.2f}] {word['word']}"
        for word in words
        if word["start"] >= start and word["end"] <= end
    )
