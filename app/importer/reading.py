"""Reading the legacy library's JSON files: whatever Python's own reader accepted, and what of it can be stored."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.importer.layout import text_problem

# Far above the largest file of the previous backend (15 MB), and small enough to be held in memory.
LARGEST_FILE = 256 * 1024 * 1024
_INTEGER = range(-(2**31), 2**31)


class Unreadable(Exception):
    """A file that holds no JSON, or not what it should; the text says why."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds. `strict` says that no text and no number in it needs to be looked at twice."""

    value: Any
    strict: bool


@dataclass(frozen=True, slots=True)
class Flaw:
    """A value that PostgreSQL cannot store, and where it is: `word_timestamps[3].start`."""

    place: str
    problem: str
    content: Any


def read_json(path: Path) -> Document:
    """Read a file. Raises `Unreadable`.

    The previous backend wrote and read NaN, infinity and half surrogate pairs without a word.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Unreadable(f"it is larger than {LARGEST_FILE // 1024**2} MB")
        content = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from None
    try:
        return Document(orjson.loads(content), strict=b"\\u0000" not in content)
    except orjson.JSONDecodeError:
        return Document(_read_tolerantly(content), strict=False)


def find_flaw(value: Any) -> Flaw | None:
    """Return the first value in `value` that PostgreSQL cannot store, or None."""
    return next(_flaws(value), None)


def read_number(value: Any) -> float | None:
    """Return a finite number, also one that is written as text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_integer(value: Any) -> int | None:
    """Return a number without a fraction that fits the tables' integers, or None."""
    number = read_number(value)
    return int(number) if number is not None and number.is_integer() and int(number) in _INTEGER else None


def read_text(value: Any, longest: int | None = None) -> str | None:
    """Return a text that can be stored, or None."""
    if not isinstance(value, str) or (longest is not None and len(value) > longest) or text_problem(value):
        return None
    return value


def _read_tolerantly(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise Unreadable("it is no UTF-8") from None
    except ValueError as error:
        raise Unreadable(f"it is no JSON: {error}") from None


def _flaws(root: Any) -> Iterator[Flaw]:
    rest: list[tuple[str, Any]] = [("", root)]
    while rest:
        place, value = rest.pop()
        match value:
            case dict():
                for name in value:
                    if problem := text_problem(name):
                        yield Flaw(place, f"a name: {problem}", name)
                rest += reversed([(f"{place}.{name}".lstrip("."), item) for name, item in value.items()])
            case list():
                rest += reversed([(f"{place}[{number}]", item) for number, item in enumerate(value)])
            case float() if not math.isfinite(value):
                yield Flaw(place, "it is no finite number", value)
            case int() if not -(2**63) <= value < 2**63:
                yield Flaw(place, "it is too large a number", value)
            case str() if problem := text_problem(value):
                yield Flaw(place, problem, value)
