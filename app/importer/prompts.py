"""A legacy `complete_prompt` as a template: the prompt's own words once, and a name for whatever changes by call.

`complete_prompt` is the prompt as it was sent, with the transcript pasted in: up to 200,000 characters, the same again
in every moment. Stored is the text with `{transcript}`, `{user_prompt}` and the like in place of what was pasted.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from app.ai.prompts import render_template

_LINE = r"\[-?\d+\.\d+(?:--?\d+\.\d+)?\] [^\n]*"
# Transcript lines without a gap: `[12.34] text` of segments or `[0.00-0.08] word` of words.
_LINES = re.compile(rf"(?m)^{_LINE}(?:\n{_LINE})*$")
_EXAMPLE = "Example:\n"

_NUMBER = r"-?\d+\.\d+"
# Where the prompts of the previous backend state a value of the call. Each pattern has one group: the value.
_STATED = (
    ("title", re.compile(r'(?m)^- Title: "(.*)"$')),
    ("start_time", re.compile(rf"(?m)^- Current start time: ({_NUMBER}) seconds$")),
    ("end_time", re.compile(rf"(?m)^- Current end time: ({_NUMBER}) seconds$")),
    ("clip_end", re.compile(rf"(?m)^- The clip ends at ({_NUMBER}) seconds$")),
    ("clip_end", re.compile(rf"(?m)coordinate system \(0\.00 to ({_NUMBER})\)$")),
    ("clip_end", re.compile(rf"(?m)^- The end_time must be <= ({_NUMBER})$")),
    ("duration", re.compile(rf"(?m)^- Video duration: ({_NUMBER}) seconds$")),
    ("duration", re.compile(rf"(?m)^- All end_time values must be <= ({_NUMBER})$")),
    ("min_moment_length", re.compile(rf"(?m)^- Moment length: Between ({_NUMBER}) and {_NUMBER} seconds$")),
    ("max_moment_length", re.compile(rf"(?m)^- Moment length: Between {_NUMBER} and ({_NUMBER}) seconds$")),
    ("min_moments", re.compile(r"(?m)^- Number of moments: Between (\d+) and \d+$")),
    ("max_moments", re.compile(r"(?m)^- Number of moments: Between \d+ and (\d+)$")),
)


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt's text with placeholders, and the text that each of them stood for."""

    text: str
    values: Mapping[str, str]


def make_template(complete_prompt: str, user_prompt: str) -> Template:
    """Return the template of a prompt. Rendered with its values it is the prompt again, character by character.

    What is not recognised stays in the text. A prompt that could not be rendered back, because it holds a
    placeholder's name itself, stays whole.
    """
    spans = sorted(_find_values(complete_prompt, user_prompt))
    parts: list[str] = []
    values: dict[str, str] = {}
    end = 0
    for start, stop, name in spans:
        value = complete_prompt[start:stop]
        if start < end or values.setdefault(name, value) != value:
            continue
        parts += [complete_prompt[end:start], f"{{{name}}}"]
        end = stop
    template = Template("".join([*parts, complete_prompt[end:]]), values)
    return template if render_template(template.text, values) == complete_prompt else Template(complete_prompt, {})


def _find_values(text: str, user_prompt: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and name of what was pasted in, the transcript first: nothing is looked for inside it."""
    transcript = _find_transcript(text)
    if transcript is not None:
        yield (*transcript, "transcript")
    start, end = transcript or (len(text), len(text))
    for paragraph in _find_paragraph(text, user_prompt):
        if paragraph[1] <= start or paragraph[0] >= end:
            yield (*paragraph, "user_prompt")
            break
    for name, pattern in _STATED:
        for match in chain(pattern.finditer(text, 0, start), pattern.finditer(text, end)):
            yield (*match.span(1), name)


def _find_paragraph(text: str, paragraph: str) -> Iterator[tuple[int, int]]:
    """Yield where a text stands between blank lines."""
    if paragraph:
        for match in re.finditer(rf"(?:\A|(?<=\n\n)){re.escape(paragraph)}(?=\n\n|\Z)", text):
            yield match.span()


def _find_transcript(text: str) -> tuple[int, int] | None:
    runs: Sequence[tuple[int, int]] = [
        match.span() for match in _LINES.finditer(text) if not text.endswith(_EXAMPLE, 0, match.start())
    ]
    return max(runs, key=lambda run: run[1] - run[0], default=None)
