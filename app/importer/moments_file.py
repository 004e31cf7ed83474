"""The rows of a legacy moments file, of every form that the previous backend ever wrote, with their prompts."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from app.ai.prompts import render_template
from app.core.text import clean_line, to_nfc
from app.importer.legacy_files import JsonDocument, UnreadableFile, find_flaw, read_integer, read_number, read_text
from app.importer.report import EntryKind, ReportNotes

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
    """A prompt's text with placeholders, and the text that each of them stood for."""

    text: str
    values: Mapping[str, str]


def make_template(complete_prompt: str, user_prompt: str) -> PromptTemplate:
    """Return the template of a prompt; rendered with its values it is exactly the prompt.

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
    template = PromptTemplate("".join([*parts, complete_prompt[end:]]), values)
    return (
        template if render_template(template.text, values) == complete_prompt else PromptTemplate(complete_prompt, {})
    )


def _find_values(text: str, user_prompt: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and name of each inserted value; the transcript itself is not searched."""
    transcript = _find_transcript(text)
    if transcript is not None:
        yield (*transcript, "transcript")
    start, end = transcript or (len(text), len(text))
    for paragraph in _find_paragraphs(text, user_prompt):
        if paragraph[1] <= start or paragraph[0] >= end:
            yield (*paragraph, "user_prompt")
            break
    for name, pattern in _STATED_VALUES:
        for match in chain(pattern.finditer(text, 0, start), pattern.finditer(text, end)):
            yield (*match.span(1), name)


def _find_paragraphs(text: str, paragraph: str) -> Iterator[tuple[int, int]]:
    """Yield the spans where a text is a paragraph of its own."""
    if paragraph:
        for match in re.finditer(rf"(?:\A|(?<=\n\n)){re.escape(paragraph)}(?=\n\n|\Z)", text):
            yield match.span()


def _find_transcript(text: str) -> tuple[int, int] | None:
    runs: Sequence[tuple[int, int]] = [
        match.span() for match in _TRANSCRIPT_LINES.finditer(text) if not text.endswith(_EXAMPLE, 0, match.start())
    ]
    return max(runs, key=lambda run: run[1] - run[0], default=None)


MAX_TITLE_LENGTH = 500
_LONGEST_MODEL = 100
_LONGEST_OPERATION = 50

_MOMENT_COLUMNS = frozenset(
    {"start_time", "end_time", "title", "id", "is_refined", "parent_id", "model_name", "generation_config"}
)
# Read on the way to another table, so that they are not lost: the clip's address.
_CLIP_PATH = "gcs_clip_path"
_PARAMETERS = ("temperature", "top_p", "top_k", "min_moment_length", "max_moment_length", "min_moments", "max_moments")
_CONFIG_COLUMNS = frozenset({"model", "operation_type", "user_prompt", "complete_prompt", *_PARAMETERS})


@dataclass(frozen=True, slots=True)
class LegacyConfig:
    """A generation config as the tables have it: a prompt and the parameters of the call."""

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
    """A row that can be stored. `row` is its place in the file, from 1; times are seconds.

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
class PastedTranscript:
    """The transcript lines in a row's prompt, the window they were cut to, and the shift of their times."""

    row: int
    lines: str
    window: tuple[float, float] | None
    offset: float


@dataclass(frozen=True, slots=True)
class MomentsFile:
    """What a moments file holds."""

    moments: list[LegacyMoment]
    pasted: list[PastedTranscript]


def parse_moments(document: JsonDocument, notes: ReportNotes) -> MomentsFile:
    """Return the rows that can be stored; note the others and all values without a column.

    Raises `UnreadableFile`.
    """
    if not isinstance(document.value, list):
        raise UnreadableFile("it holds no list")
    result = MomentsFile([], [])
    templates: dict[tuple[str, str], PromptTemplate] = {}
    for number, row in enumerate(document.value, start=1):
        if problem := _describe_row_problem(row, document.strict):
            notes.add(EntryKind.REFUSED, problem, row, row=number)
            continue
        reader = _MomentRowReader(row, number, templates, document.strict)
        result.moments.append(reader.read_row())
        result.pasted.extend(reader.pasted)
        if reader.dropped:
            notes.add(EntryKind.DROPPED, "the tables have no column for this", reader.dropped, row=number)
    return result


def _describe_row_problem(row: Any, strict: bool) -> str | None:
    if not isinstance(row, dict):
        return "no object"
    if not isinstance(row.get("title"), str):
        return "title is no text"
    if len(row["title"]) > MAX_TITLE_LENGTH:
        return f"title has more than {MAX_TITLE_LENGTH} characters"
    start, end = read_number(row.get("start_time")), read_number(row.get("end_time"))
    if start is None or end is None:
        return "start_time or end_time is no finite number"
    if end <= start:
        return "end_time is not greater than start_time"
    if not isinstance(row.get("is_refined"), bool | None):
        return "is_refined is neither true nor false"
    used = {name: row.get(name) for name in ("title", "id", "parent_id")}
    if not strict and (flaw := find_flaw(used)):
        return f"{flaw.json_path}: {flaw.problem}"
    return None


class _MomentRowReader:
    """Reads one row, and collects what of it has no column and what was pasted into its prompt."""

    def __init__(
        self, row: dict[str, Any], number: int, templates: dict[tuple[str, str], PromptTemplate], strict: bool
    ) -> None:
        self._row = row
        self._read_required_number = number
        self._templates = templates
        self._strict = strict
        self.dropped: dict[str, Any] = {}
        self.pasted: list[PastedTranscript] = []

    def read_row(self) -> LegacyMoment:
        row = self._row
        legacy_parent = _read_id(row.get("parent_id"))
        is_refined = row.get("is_refined")
        config = _normalize_prompts(row.get("generation_config"))
        self.dropped |= {
            name: _strip_signature(value)
            for name, value in row.items()
            if name not in _MOMENT_COLUMNS and name != _CLIP_PATH
        }
        self._ignore_duplicate_prompt(config)
        return LegacyMoment(
            row=self._read_required_number,
            legacy_id=_read_id(row.get("id")),
            legacy_parent=legacy_parent,
            start_time=_read_required_number(row["start_time"]),
            end_time=_read_required_number(row["end_time"]),
            title=clean_line(row["title"]),
            is_refined=legacy_parent is not None if is_refined is None else is_refined,
            model=self._read_or_drop("model_name", _LONGEST_MODEL),
            config=self._read_config(config, bool(is_refined)),
            config_key=_hash_config(config),
            clip_path=self._read_or_drop(_CLIP_PATH),
            clip_url=read_text(row.get("clip_signed_url")),
            window=_read_window(config),
        )

    def _read_or_drop(self, name: str, longest: int | None = None) -> str | None:
        value = self._row.get(name)
        text = read_text(value, longest)
        if text is None and value is not None:
            self.dropped[name] = value
        return text

    def _ignore_duplicate_prompt(self, config: Any) -> None:
        """Ignore the second copy of the complete prompt in old rows."""
        complete = config.get("complete_prompt") if isinstance(config, dict) else None
        copy = self.dropped.get("prompt")
        if "prompt" in self.dropped and (to_nfc(copy) if isinstance(copy, str) else copy) in (complete, None):
            del self.dropped["prompt"]

    def _read_config(self, config: Any, is_refined: bool) -> LegacyConfig | None:
        if config is None:
            return None
        if (problem := self._config_problem(config)) is not None:
            self.dropped["generation_config"] = {"problem": problem, "content": config}
            return None
        template = self._make_template(config)
        result = LegacyConfig(
            user_prompt=config.get("user_prompt") or "",
            system_prompt=template.text,
            model=config.get("model") or self._row.get("model_name") or "unknown",
            operation_type=config.get("operation_type") or ("refinement" if is_refined else "generation"),
            temperature=read_number(config.get("temperature")),
            top_p=read_number(config.get("top_p")),
            top_k=read_integer(config.get("top_k")),
            min_moment_length=read_number(config.get("min_moment_length")),
            max_moment_length=read_number(config.get("max_moment_length")),
            min_moments=read_integer(config.get("min_moments")),
            max_moments=read_integer(config.get("max_moments")),
        )
        self._note_dropped(config, result, template)
        if "transcript" in template.values:
            self._note_pasted(config, template.values["transcript"])
        return result

    def _config_problem(self, config: Any) -> str | None:
        if not isinstance(config, dict):
            return "no object"
        model = config.get("model") or self._row.get("model_name") or "unknown"
        if read_text(model, _LONGEST_MODEL) is None:
            return f"model is no text of at most {_LONGEST_MODEL} characters"
        if read_text(config.get("operation_type") or "", _LONGEST_OPERATION) is None:
            return f"operation_type is no text of at most {_LONGEST_OPERATION} characters"
        prompts = [config.get(name) or "" for name in ("user_prompt", "complete_prompt")]
        if not all(isinstance(prompt, str) for prompt in prompts):
            return "a prompt is no text"
        flaw = None if self._strict else find_flaw(prompts)
        return f"a prompt: {flaw.problem}" if flaw else None

    def _make_template(self, config: dict[str, Any]) -> PromptTemplate:
        key = (config.get("complete_prompt") or "", config.get("user_prompt") or "")
        if key not in self._templates:
            self._templates[key] = make_template(*key)
        return self._templates[key]

    def _note_dropped(self, config: dict[str, Any], stored: LegacyConfig, template: PromptTemplate) -> None:
        dropped = {name: _strip_signature(value) for name, value in config.items() if name not in _CONFIG_COLUMNS}
        for name in _PARAMETERS:
            if getattr(stored, name) is None and config.get(name) is not None:
                dropped[name] = config[name]
        if stated := _unstored_values(template.values, stored):
            dropped["complete_prompt"] = stated
        if dropped:
            self.dropped["generation_config"] = dropped

    def _note_pasted(self, config: dict[str, Any], lines: str) -> None:
        offset = read_number(config.get("timestamp_offset")) or 0.0
        self.pasted.append(PastedTranscript(self._read_required_number, lines, _read_window(config), offset))


def _unstored_values(values: Mapping[str, str], stored: LegacyConfig) -> dict[str, str]:
    """Return the values of a prompt that no column of its config holds."""
    columns = {
        "min_moment_length": _format_decimals(stored.min_moment_length),
        "max_moment_length": _format_decimals(stored.max_moment_length),
        "min_moments": str(stored.min_moments),
        "max_moments": str(stored.max_moments),
        "user_prompt": stored.user_prompt,
    }
    return {name: value for name, value in values.items() if name != "transcript" and columns.get(name) != value}


def _normalize_prompts(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    texts = {name: config[name] for name in ("user_prompt", "complete_prompt") if isinstance(config.get(name), str)}
    return {**config, **{name: to_nfc(text) for name, text in texts.items()}}


def _strip_signature(value: Any) -> Any:
    """Remove the expired signature of a signed URL."""
    return value.partition("?")[0] if isinstance(value, str) and "?X-Goog-" in value else value


def _format_decimals(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _read_id(value: Any) -> str | None:
    """Return an id as text; missing, null and "" are None."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _read_window(config: Any) -> tuple[float, float] | None:
    if not isinstance(config, dict):
        return None
    start, end = read_number(config.get("clip_start")), read_number(config.get("clip_end"))
    return (start, end) if start is not None and end is not None and start < end else None


def _read_required_number(value: Any) -> float:
    number = read_number(value)
    assert number is not None  # noqa: S101  # _row_problem has looked
    return number


def _hash_config(config: Any) -> bytes:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest() if config is not None else b""
