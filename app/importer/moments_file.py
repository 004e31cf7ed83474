"""The rows of a legacy moments file, of every form that the previous backend ever wrote, with their prompts."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from app.ai.prompts import fill_in_template
from app.core.text import clean_line, to_nfc
from app.importer.legacy_files import (
    JsonDocument,
    UnreadableFile,
    find_unstorable_value,
    to_32_bit_integer,
    to_finite_number,
    to_storable_text,
)
from app.importer.report import EntryKind, FileReporter

_TRANSCRIPT_LINE = r"\[-?\d+\.\d+(?:--?\d+\.\d+)?\] [^\n]*"
# Transcript lines without a gap: `[12.34] text` of segments or `[0.00-0.08] word` of words.
_TRANSCRIPT_LINES = re.compile(rf"(?m)^{_TRANSCRIPT_LINE}(?:\n{_TRANSCRIPT_LINE})*$")
_EXAMPLE = "Example:\n"

_NUMBER = r"-?\d+\.\d+"
# Where the prompts of the previous backend state a value of the call. Each pattern has one group: the value.
_STATED_VALUES = (
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
class PromptTemplate:
    """A prompt with placeholders such as `{transcript}`, and the text that each of them replaced."""

    text: str
    values: Mapping[str, str]


@lru_cache(maxsize=16)
def extract_prompt_template(complete_prompt: str, user_prompt: str) -> PromptTemplate:
    """Replace the transcript, the user's prompt and known values in a prompt by placeholders.

    Rendered with its values, the template is exactly the prompt. A prompt that could not be rendered back, because it
    holds the name of a placeholder itself, stays whole.
    """
    parts: list[str] = []
    values: dict[str, str] = {}
    end = 0
    for start, stop, name in sorted(_find_values(complete_prompt, user_prompt)):
        value = complete_prompt[start:stop]
        if start < end or values.setdefault(name, value) != value:
            continue
        parts += [complete_prompt[end:start], f"{{{name}}}"]
        end = stop
    text = "".join([*parts, complete_prompt[end:]])
    is_exact = fill_in_template(text, values) == complete_prompt
    return PromptTemplate(text, values) if is_exact else PromptTemplate(complete_prompt, {})


def _find_values(prompt: str, user_prompt: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and placeholder name of each inserted value in a prompt; the transcript is not searched."""
    transcript = _find_longest_transcript_span(prompt)
    if transcript is not None:
        yield (*transcript, "transcript")
    start, end = transcript or (len(prompt), len(prompt))
    if user_prompt:
        for match in re.finditer(rf"(?:\A|(?<=\n\n)){re.escape(user_prompt)}(?=\n\n|\Z)", prompt):
            if match.end() <= start or match.start() >= end:
                yield (*match.span(), "user_prompt")
                break
    for name, pattern in _STATED_VALUES:
        for match in chain(pattern.finditer(prompt, 0, start), pattern.finditer(prompt, end)):
            yield (*match.span(1), name)


def _find_longest_transcript_span(prompt: str) -> tuple[int, int] | None:
    runs: Sequence[tuple[int, int]] = [
        match.span() for match in _TRANSCRIPT_LINES.finditer(prompt) if not prompt.endswith(_EXAMPLE, 0, match.start())
    ]
    return max(runs, key=lambda run: run[1] - run[0], default=None)


_MAX_TITLE_LENGTH = 500
_MAX_MODEL_LENGTH = 100
_MAX_OPERATION_LENGTH = 50

# Read for another table than moments: the clip's.
_CLIP_PATH = "gcs_clip_path"
_MOMENT_TEXTS = ("id", "parent_id", "title", "model_name", _CLIP_PATH)
_MOMENT_COLUMNS = frozenset({"start_time", "end_time", "is_refined", "generation_config", *_MOMENT_TEXTS})
_PARAMETERS: Mapping[str, Callable[[Any], Any]] = {
    "temperature": to_finite_number,
    "top_p": to_finite_number,
    "top_k": to_32_bit_integer,
    "min_moment_length": to_finite_number,
    "max_moment_length": to_finite_number,
    "min_moments": to_32_bit_integer,
    "max_moments": to_32_bit_integer,
}
_CONFIG_COLUMNS = frozenset({"model", "operation_type", "user_prompt", "complete_prompt", *_PARAMETERS})


@dataclass(frozen=True, slots=True)
class LegacyConfig:
    """The prompt and the parameters with which a model was called for a moment."""

    user_prompt: str
    system_prompt: str
    model: str
    operation_type: str
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_moment_length: float | None = None
    max_moment_length: float | None = None
    min_moments: int | None = None
    max_moments: int | None = None


@dataclass(frozen=True, slots=True)
class LegacyMoment:
    """A moment of a moments file that can be stored; `row` counts from 1, times are seconds.

    `config_key` distinguishes configs that differ only in values without a column. `window` is the part of the video
    that a refinement used: the clip of the refined moment.
    """

    row: int
    legacy_id: str | None
    legacy_parent: str | None
    start_time: float
    end_time: float
    title: str
    is_refined: bool
    model: str | None = None
    config: LegacyConfig | None = None
    config_key: bytes = b""
    clip_path: str | None = None
    clip_url: str | None = None
    window: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PromptTranscript:
    """The transcript lines in a moment's prompt, the window they were cut to, and the shift of their times."""

    row: int
    lines: str
    window: tuple[float, float] | None
    offset: float


@dataclass(frozen=True, slots=True)
class ParsedMoments:
    """The moments of a moments file, and the transcripts in their prompts."""

    moments: list[LegacyMoment]
    prompt_transcripts: list[PromptTranscript]


def parse_moments(document: JsonDocument, reporter: FileReporter) -> ParsedMoments:
    """Return the moments that can be stored; report the others, and all values without a column.

    Raises `UnreadableFile`.
    """
    if not isinstance(document.value, list):
        raise UnreadableFile("it holds no list")
    result = ParsedMoments([], [])
    for number, row in enumerate(document.value, start=1):
        if problem := _explain_refused_moment(row, document.is_storable):
            reporter.add_entry(EntryKind.REFUSED, problem, row, number)
            continue
        parser = _MomentParser(row, number, document.is_storable)
        result.moments.append(parser.parse_moment())
        result.prompt_transcripts.extend(parser.prompt_transcripts)
        if parser.dropped:
            reporter.add_entry(EntryKind.DROPPED, "the tables have no column for this", parser.dropped, number)
    return result


def _explain_refused_moment(row: Any, is_storable: bool) -> str | None:
    if not isinstance(row, dict):
        return "no object"
    if not isinstance(row.get("title"), str):
        return "title is no text"
    if len(row["title"]) > _MAX_TITLE_LENGTH:
        return f"title has more than {_MAX_TITLE_LENGTH} characters"
    start, end = to_finite_number(row.get("start_time")), to_finite_number(row.get("end_time"))
    if start is None or end is None:
        return "start_time or end_time is no finite number"
    if end <= start:
        return "end_time is not greater than start_time"
    if not isinstance(row.get("is_refined"), bool | None):
        return "is_refined is neither true nor false"
    texts = {name: row.get(name) for name in ("title", "id", "parent_id")}
    if not is_storable and (flaw := find_unstorable_value(texts)):
        return f"{flaw.json_path}: {flaw.problem}"
    return None


class _MomentParser:
    """Parses one row of a moments file; collects its values without a column and the transcript in its prompt."""

    def __init__(self, row: dict[str, Any], number: int, is_storable: bool) -> None:
        self._row = row
        self._number = number
        self._is_storable = is_storable
        self.dropped: dict[str, Any] = {}
        self.prompt_transcripts: list[PromptTranscript] = []

    def parse_moment(self) -> LegacyMoment:
        row = self._row
        legacy_parent = _read_id_as_text(row.get("parent_id"))
        is_refined = row.get("is_refined")
        config = _normalize_unicode_of_prompts(row.get("generation_config"))
        self.dropped |= {
            name: _strip_url_signature(value) for name, value in row.items() if name not in _MOMENT_COLUMNS
        }
        self._ignore_duplicate_prompt(config)
        return LegacyMoment(
            row=self._number,
            legacy_id=_read_id_as_text(row.get("id")),
            legacy_parent=legacy_parent,
            start_time=float(row["start_time"]),
            end_time=float(row["end_time"]),
            title=clean_line(row["title"]),
            is_refined=legacy_parent is not None if is_refined is None else is_refined,
            model=self._read_text_or_drop("model_name", _MAX_MODEL_LENGTH),
            config=self._parse_config(config, bool(is_refined)),
            config_key=_digest_config(config),
            clip_path=self._read_text_or_drop(_CLIP_PATH),
            clip_url=to_storable_text(row.get("clip_signed_url")),
            window=_read_clip_window(config),
        )

    def _read_text_or_drop(self, name: str, max_length: int | None = None) -> str | None:
        value = self._row.get(name)
        text = to_storable_text(value, max_length)
        if text is None and value is not None:
            self.dropped[name] = value
        return text

    def _ignore_duplicate_prompt(self, config: Any) -> None:
        """Remove the second copy of the complete prompt, which old rows have, from `dropped`."""
        complete = config.get("complete_prompt") if isinstance(config, dict) else None
        copy = self.dropped.get("prompt")
        if (to_nfc(copy) if isinstance(copy, str) else copy) in (complete, None):
            self.dropped.pop("prompt", None)

    def _parse_config(self, config: Any, is_refined: bool) -> LegacyConfig | None:
        if config is None:
            return None
        if (problem := self._explain_refused_config(config)) is not None:
            self.dropped["generation_config"] = {"problem": problem, "content": config}
            return None
        template = extract_prompt_template(config.get("complete_prompt") or "", config.get("user_prompt") or "")
        result = LegacyConfig(
            user_prompt=config.get("user_prompt") or "",
            system_prompt=template.text,
            model=config.get("model") or self._row.get("model_name") or "unknown",
            operation_type=config.get("operation_type") or ("refinement" if is_refined else "generation"),
            **{name: convert(config.get(name)) for name, convert in _PARAMETERS.items()},
        )
        if dropped := _find_unstored_config_values(config, result, template):
            self.dropped["generation_config"] = dropped
        if (lines := template.values.get("transcript")) is not None:
            offset = to_finite_number(config.get("timestamp_offset")) or 0.0
            self.prompt_transcripts.append(PromptTranscript(self._number, lines, _read_clip_window(config), offset))
        return result

    def _explain_refused_config(self, config: Any) -> str | None:
        if not isinstance(config, dict):
            return "no object"
        model = config.get("model") or self._row.get("model_name") or "unknown"
        if to_storable_text(model, _MAX_MODEL_LENGTH) is None:
            return f"model is no text of at most {_MAX_MODEL_LENGTH} characters"
        if to_storable_text(config.get("operation_type") or "", _MAX_OPERATION_LENGTH) is None:
            return f"operation_type is no text of at most {_MAX_OPERATION_LENGTH} characters"
        prompts = [config.get(name) or "" for name in ("user_prompt", "complete_prompt")]
        if not all(isinstance(prompt, str) for prompt in prompts):
            return "a prompt is no text"
        flaw = None if self._is_storable else find_unstorable_value(prompts)
        return f"a prompt: {flaw.problem}" if flaw else None


def _find_unstored_config_values(
    config: dict[str, Any], stored: LegacyConfig, template: PromptTemplate
) -> dict[str, Any]:
    dropped = {name: _strip_url_signature(value) for name, value in config.items() if name not in _CONFIG_COLUMNS}
    for name in _PARAMETERS:
        if getattr(stored, name) is None and config.get(name) is not None:
            dropped[name] = config[name]
    in_columns = {
        "min_moment_length": _format_decimals(stored.min_moment_length),
        "max_moment_length": _format_decimals(stored.max_moment_length),
        "min_moments": str(stored.min_moments),
        "max_moments": str(stored.max_moments),
        "user_prompt": stored.user_prompt,
    }
    values = {name: value for name, value in template.values.items() if name != "transcript"}
    if unstored := {name: value for name, value in values.items() if in_columns.get(name) != value}:
        dropped["complete_prompt"] = unstored
    return dropped


def _normalize_unicode_of_prompts(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    texts = {name: config[name] for name in ("user_prompt", "complete_prompt") if isinstance(config.get(name), str)}
    return {**config, **{name: to_nfc(text) for name, text in texts.items()}}


def _strip_url_signature(value: Any) -> Any:
    return value.partition("?")[0] if isinstance(value, str) and "?X-Goog-" in value else value


def _format_decimals(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _read_id_as_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _read_clip_window(config: Any) -> tuple[float, float] | None:
    if not isinstance(config, dict):
        return None
    start, end = to_finite_number(config.get("clip_start")), to_finite_number(config.get("clip_end"))
    return (start, end) if start is not None and end is not None and start < end else None


def _digest_config(config: Any) -> bytes:
    """Return the SHA-256 of a config, whatever the order of its names; b"" for None."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest() if config is not None else b""
