"""What is found in the text that a language model answers with, whatever it wraps it in."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import json_repair

from app.ai.text import one_line

_LIST_NAMES = (
    "moments",
    "output",
    "final_output",
    "response",
    "final_json",
    "json_output",
    "final_json_output",
    "final",
)
_THOUGHT = re.compile(r"<think\b[^>]*>.*?</think\s*>", re.IGNORECASE | re.DOTALL)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?\s*>", re.IGNORECASE)
_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z]*")
_LIST = re.compile(r"\[\s*(?=[\[{\]])")
_OBJECT = re.compile(r'\{(?=\s*")')
_FLAT_OBJECT = re.compile(r"\{[^{}]{0,2000}\}")
_NUMBER = re.compile(r"\s*[+-]?\d{1,15}(\.\d{1,30})?\s*")
_LONGEST_TITLE = 500  # characters that are stored
_MOST_ATTEMPTS = 500  # of reading a part of an answer; it bounds the time that a hostile one takes

_decoder = json.JSONDecoder()


class Unreadable(Exception):
    """An answer without anything that was asked for; the text says why, in words for the model itself."""


def read_moments(text: str) -> list[Any]:
    """Return the items of the list of moments in an answer, whatever they are. Raises `Unreadable`."""
    answer = _without_thoughts(text)
    if not answer.strip():
        raise Unreadable("the answer is empty")
    whole = _decode(_unfenced(answer))
    if whole is not _NOTHING:
        items = _moments_of(whole)
        if not items:
            _refuse_error(whole)
        if items is None:
            raise Unreadable("the answer is not a list of moments")
        return items
    return _search(answer)


def read_times(text: str) -> tuple[float, float]:
    """Return start and end in an answer to a refinement. Raises `Unreadable`."""
    answer = _without_thoughts(text)
    found = _decode(_unfenced(answer))
    if found is _NOTHING:
        found = next((value for value in _decode_parts(answer, _OBJECT) if _has_times(value)), _NOTHING)
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        raise Unreadable("the answer is not an object with start_time and end_time")
    _refuse_error(found)
    start, end = read_seconds(found.get("start_time")), read_seconds(found.get("end_time"))
    if start is None or end is None:
        raise Unreadable("start_time and end_time are not two numbers of seconds")
    return start, end


def _refuse_error(answer: Any) -> None:
    if isinstance(answer, dict) and answer.get("error"):
        raise Unreadable(f"AI model error: {str(answer['error'])[:200]}")


def read_seconds(value: Any) -> float | None:
    """Return a finite number, also where it is written as text; None for all else, such as "70s" and "00:01:00"."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def read_title(value: Any) -> str:
    """Return a title as one line; an empty one where there is none."""
    return "" if value is None else one_line(str(value), _LONGEST_TITLE)


_NOTHING = object()


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOTHING


def _without_thoughts(text: str) -> str:
    """Return what comes after the last thought; where nothing does, all that is not inside one."""
    *_, rest = _END_OF_THOUGHT.split(text)
    return rest if rest.strip() else _THOUGHT.sub("", text)


def _unfenced(text: str) -> str:
    inside = text.strip()
    if not inside.startswith(_FENCE) or not inside.endswith(_FENCE):
        return text
    return _LANGUAGE.sub("", inside.removeprefix(_FENCE).removesuffix(_FENCE), count=1)


def _moments_of(value: Any) -> list[Any] | None:
    """Return the list of moments that a value is or holds."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return None
    named = (value[name] for name in _LIST_NAMES if isinstance(value.get(name), list))
    others = (each for each in value.values() if isinstance(each, list) and each and _is_moment(each[0]))
    return next(named, None) or next(others, None) or next((value[n] for n in _LIST_NAMES if value.get(n) == []), None)


def _is_moment(value: Any) -> bool:
    return isinstance(value, dict) and "start_time" in value


def _has_times(value: Any) -> bool:
    return isinstance(value, dict) and bool({"start_time", "end_time", "error"} & value.keys())


def _search(text: str) -> list[Any]:
    """Return the last list of moments in a text, else every complete moment, else an empty list that is there."""
    lists = [value for value in _decode_parts(text, _LIST) if isinstance(value, list)]
    for found in reversed(lists):
        if any(map(_is_moment, found)):
            return found
    moments = [value for value in _decode_parts(text, _OBJECT) if _is_moment(value)]
    if moments:
        return moments
    if [] in lists:
        return []
    raise Unreadable("there is no list of moments in the answer")


def _decode_parts(text: str, beginning: re.Pattern[str]) -> Iterator[Any]:
    """Yield the values that begin at a bracket or a brace and are complete, none from inside another."""
    position = 0
    for _ in range(_MOST_ATTEMPTS):
        match = beginning.search(text, position)
        if match is None:
            return
        try:
            value, position = _decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            value, position = _repair(text, match)
        if value is not _NOTHING:
            yield value


def _repair(text: str, match: re.Match[str]) -> tuple[Any, int]:
    """Read an object that is complete and not quite JSON; nothing is made up for one that is cut off."""
    flat = _FLAT_OBJECT.match(text, match.start())
    if flat is None or '"start_time"' not in flat[0]:
        return _NOTHING, match.end()
    value = json_repair.loads(flat[0], skip_json_loads=True)
    is_plain = isinstance(value, dict) and all(map(str.isidentifier, value))  # 00:01:00 becomes a name as well
    return (value, flat.end()) if is_plain else (_NOTHING, flat.end())
