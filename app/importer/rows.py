"""The rows of a legacy moments file, of every form that the previous backend ever wrote."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core.text import clean_line, to_nfc
from app.importer.prompts import Template, make_template
from app.importer.reading import Document, Unreadable, find_flaw, read_integer, read_number, read_text
from app.importer.report import Kind, Notes

LONGEST_TITLE = 500
_LONGEST_MODEL = 100
_LONGEST_OPERATION = 50

_COLUMNS = frozenset(
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

    `config_key` tells two configs apart that differ only in what has no column. `window` is the part of the video that
    a refinement looked at, which is the clip of the moment it refined.
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


def parse_moments(document: Document, notes: Notes) -> MomentsFile:
    """Return the rows that can be stored; the others and all that has no column go into `notes`.

    Raises `Unreadable`.
    """
    if not isinstance(document.value, list):
        raise Unreadable("it holds no list")
    result = MomentsFile([], [])
    templates: dict[tuple[str, str], Template] = {}
    for number, row in enumerate(document.value, start=1):
        if problem := _row_problem(row, document.strict):
            notes.add(Kind.REFUSED, problem, row, row=number)
            continue
        reader = _RowReader(row, number, templates, document.strict)
        result.moments.append(reader.read())
        result.pasted.extend(reader.pasted)
        if reader.dropped:
            notes.add(Kind.DROPPED, "the tables have no column for this", reader.dropped, row=number)
    return result


def _row_problem(row: Any, strict: bool) -> str | None:
    """Return why a row cannot be stored, or None."""
    if not isinstance(row, dict):
        return "no object"
    if not isinstance(row.get("title"), str):
        return "title is no text"
    if len(row["title"]) > LONGEST_TITLE:
        return f"title has more than {LONGEST_TITLE} characters"
    start, end = read_number(row.get("start_time")), read_number(row.get("end_time"))
    if start is None or end is None:
        return "start_time or end_time is no finite number"
    if end <= start:
        return "end_time is not greater than start_time"
    if not isinstance(row.get("is_refined"), bool | None):
        return "is_refined is neither true nor false"
    used = {name: row.get(name) for name in ("title", "id", "parent_id")}
    if not strict and (flaw := find_flaw(used)):
        return f"{flaw.place}: {flaw.problem}"
    return None


class _RowReader:
    """Reads one row, and collects what of it has no column and what was pasted into its prompt."""

    def __init__(
        self, row: dict[str, Any], number: int, templates: dict[tuple[str, str], Template], strict: bool
    ) -> None:
        self._row = row
        self._number = number
        self._templates = templates
        self._strict = strict
        self.dropped: dict[str, Any] = {}
        self.pasted: list[PastedTranscript] = []

    def read(self) -> LegacyMoment:
        row = self._row
        legacy_parent = _read_id(row.get("parent_id"))
        is_refined = row.get("is_refined")
        config = _compose(row.get("generation_config"))
        self.dropped |= {
            name: _unsigned(value) for name, value in row.items() if name not in _COLUMNS and name != _CLIP_PATH
        }
        self._forget_copy_of_prompt(config)
        return LegacyMoment(
            row=self._number,
            legacy_id=_read_id(row.get("id")),
            legacy_parent=legacy_parent,
            start_time=_number(row["start_time"]),
            end_time=_number(row["end_time"]),
            title=clean_line(row["title"]),
            is_refined=legacy_parent is not None if is_refined is None else is_refined,
            model=self._read_or_drop("model_name", _LONGEST_MODEL),
            config=self._read_config(config, bool(is_refined)),
            config_key=_digest(config),
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

    def _forget_copy_of_prompt(self, config: Any) -> None:
        """Old rows hold the complete prompt twice."""
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

    def _make_template(self, config: dict[str, Any]) -> Template:
        key = (config.get("complete_prompt") or "", config.get("user_prompt") or "")
        if key not in self._templates:
            self._templates[key] = make_template(*key)
        return self._templates[key]

    def _note_dropped(self, config: dict[str, Any], stored: LegacyConfig, template: Template) -> None:
        dropped = {name: _unsigned(value) for name, value in config.items() if name not in _CONFIG_COLUMNS}
        for name in _PARAMETERS:
            if getattr(stored, name) is None and config.get(name) is not None:
                dropped[name] = config[name]
        if stated := _unstored_values(template.values, stored):
            dropped["complete_prompt"] = stated
        if dropped:
            self.dropped["generation_config"] = dropped

    def _note_pasted(self, config: dict[str, Any], lines: str) -> None:
        offset = read_number(config.get("timestamp_offset")) or 0.0
        self.pasted.append(PastedTranscript(self._number, lines, _read_window(config), offset))


def _unstored_values(values: Mapping[str, str], stored: LegacyConfig) -> dict[str, str]:
    """Return the values that a prompt states and no column of its config holds."""
    columns = {
        "min_moment_length": _decimals(stored.min_moment_length),
        "max_moment_length": _decimals(stored.max_moment_length),
        "min_moments": str(stored.min_moments),
        "max_moments": str(stored.max_moments),
        "user_prompt": stored.user_prompt,
    }
    return {name: value for name, value in values.items() if name != "transcript" and columns.get(name) != value}


def _compose(config: Any) -> Any:
    """Return a config with its prompts in NFC."""
    if not isinstance(config, dict):
        return config
    texts = {name: config[name] for name in ("user_prompt", "complete_prompt") if isinstance(config.get(name), str)}
    return {**config, **{name: to_nfc(text) for name, text in texts.items()}}


def _unsigned(value: Any) -> Any:
    """Return a signed URL without its signature, which expired an hour after it was made, and all else as it is."""
    return value.partition("?")[0] if isinstance(value, str) and "?X-Goog-" in value else value


def _decimals(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _read_id(value: Any) -> str | None:
    """Return an id as text; a missing one, null and "" are the same."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _read_window(config: Any) -> tuple[float, float] | None:
    if not isinstance(config, dict):
        return None
    start, end = read_number(config.get("clip_start")), read_number(config.get("clip_end"))
    return (start, end) if start is not None and end is not None and start < end else None


def _number(value: Any) -> float:
    number = read_number(value)
    assert number is not None  # noqa: S101  # _row_problem has looked
    return number


def _digest(config: Any) -> bytes:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest() if config is not None else b""
