"""Parsing and validation of the output of language models, whatever it is wrapped in."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import json_repair

from app.ai.protocols import FindRequest, FoundMoment, RefineRequest
from app.core.text import to_single_line

_LIST_KEYS = (
    "moments",
    "output",
    "final_output",
    "response",
    "final_json",
    "json_output",
    "final_json_output",
    "final",
)
_REASONING = re.compile(r"<think\b[^>]*>.*?</think\s*>", re.IGNORECASE | re.DOTALL)
_REASONING_END = re.compile(r"</think(?:ing)?\s*>", re.IGNORECASE)
_FENCE = "```"
_FENCE_LANGUAGE = re.compile(r"[A-Za-z]*")
_LIST_START = re.compile(r"\[\s*(?=[\[{\]])")
_OBJECT_START = re.compile(r'\{(?=\s*")')
_FLAT_OBJECT = re.compile(r"\{[^{}]{0,2000}\}")
_PLAIN_NUMBER = re.compile(r"\s*[+-]?\d{1,15}(\.\d{1,30})?\s*")
_MAX_TITLE_LENGTH = 500  # stored characters
_MAX_DECODE_ATTEMPTS = 500  # bounds the time that a hostile answer takes

_json_decoder = json.JSONDecoder()


class UnusableOutput(Exception):
    """Output without the requested data; the text says why, in words for the model."""


def parse_moments(model_output: str) -> list[Any]:
    """Return the unvalidated items of the list of moments in an answer. Raises `UnusableOutput`."""
    answer = _strip_reasoning(model_output)
    if not answer.strip():
        raise UnusableOutput("the answer is empty")
    whole = _decode_json(_strip_code_fence(answer))
    if whole is not _NOT_JSON:
        items = _find_moment_list(whole)
        if not items:
            _raise_reported_error(whole)
        if items is None:
            raise UnusableOutput("the answer is not a list of moments")
        return items
    return _search_moments(answer)


def parse_refined_times(model_output: str) -> tuple[float, float]:
    """Return start and end, in seconds of the window, from an answer. Raises `UnusableOutput`."""
    answer = _strip_reasoning(model_output)
    found = _decode_json(_strip_code_fence(answer))
    if found is _NOT_JSON:
        found = next((value for value in _decode_json_fragments(answer, _OBJECT_START) if _has_times(value)), _NOT_JSON)
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        raise UnusableOutput("the answer is not an object with start_time and end_time")
    _raise_reported_error(found)
    start, end = parse_seconds(found.get("start_time")), parse_seconds(found.get("end_time"))
    if start is None or end is None:
        raise UnusableOutput("start_time and end_time are not two numbers of seconds")
    return start, end


def _raise_reported_error(answer: Any) -> None:
    if isinstance(answer, dict) and answer.get("error"):
        raise UnusableOutput(f"AI model error: {str(answer['error'])[:200]}")


def parse_seconds(value: Any) -> float | None:
    """Return a finite number, also from a string; None for anything else, such as "70s" and "00:01:00"."""
    if isinstance(value, str) and _PLAIN_NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def parse_moment_title(value: Any) -> str:
    return "" if value is None else to_single_line(str(value), _MAX_TITLE_LENGTH)


_NOT_JSON = object()


def _decode_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _strip_reasoning(text: str) -> str:
    """Return what follows the last closed reasoning block, or else everything outside of such blocks."""
    *_, rest = _REASONING_END.split(text)
    return rest if rest.strip() else _REASONING.sub("", text)


def _strip_code_fence(text: str) -> str:
    inside = text.strip()
    if not inside.startswith(_FENCE) or not inside.endswith(_FENCE):
        return text
    return _FENCE_LANGUAGE.sub("", inside.removeprefix(_FENCE).removesuffix(_FENCE), count=1)


def _find_moment_list(answer: Any) -> list[Any] | None:
    if isinstance(answer, list):
        return answer
    if not isinstance(answer, dict):
        return None
    named = (answer[name] for name in _LIST_KEYS if isinstance(answer.get(name), list))
    others = (each for each in answer.values() if isinstance(each, list) and each and _looks_like_moment(each[0]))
    return next(named, None) or next(others, None) or next((answer[n] for n in _LIST_KEYS if answer.get(n) == []), None)


def _looks_like_moment(value: Any) -> bool:
    return isinstance(value, dict) and "start_time" in value


def _has_times(value: Any) -> bool:
    return isinstance(value, dict) and bool({"start_time", "end_time", "error"} & value.keys())


def _search_moments(text: str) -> list[Any]:
    """Return the last list of moments in a text, else all complete moments, else an empty list if it has one."""
    lists = [value for value in _decode_json_fragments(text, _LIST_START) if isinstance(value, list)]
    for found in reversed(lists):
        if any(map(_looks_like_moment, found)):
            return found
    moments = [value for value in _decode_json_fragments(text, _OBJECT_START) if _looks_like_moment(value)]
    if moments:
        return moments
    if [] in lists:
        return []
    raise UnusableOutput("there is no list of moments in the answer")


def _decode_json_fragments(text: str, start_pattern: re.Pattern[str]) -> Iterator[Any]:
    position = 0
    for _ in range(_MAX_DECODE_ATTEMPTS):
        match = start_pattern.search(text, position)
        if match is None:
            return
        try:
            value, position = _json_decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            value, position = _repair_moment_object(text, match)
        if value is not _NOT_JSON:
            yield value


def _repair_moment_object(text: str, start_match: re.Match[str]) -> tuple[Any, int]:
    """Repair a complete object that is not quite JSON; a truncated one is not completed."""
    flat = _FLAT_OBJECT.match(text, start_match.start())
    if flat is None or '"start_time"' not in flat[0]:
        return _NOT_JSON, start_match.end()
    value = json_repair.loads(flat[0], skip_json_loads=True)
    is_plain = isinstance(value, dict) and all(map(str.isidentifier, value))  # a repaired 00:01:00 yields odd names
    return (value, flat.end()) if is_plain else (_NOT_JSON, flat.end())


_FLOAT_TOLERANCE_SECONDS = 1e-6  # error of float sums
_PROMPT_ROUNDING_SECONDS = 0.005 + _FLOAT_TOLERANCE_SECONDS  # prompts show times with two decimals


def to_moment_or_rejection_reason(item: Any, request: FindRequest) -> FoundMoment | str:
    """Return the moment, or the reason, in words for the model, why an item is none."""
    if not isinstance(item, dict):
        return "it is not an object"
    title = parse_moment_title(item.get("title"))
    start, end = parse_seconds(item.get("start_time")), parse_seconds(item.get("end_time"))
    if start is None or end is None:
        return "start_time and end_time are not both plain numbers of seconds"
    if not title:
        return "it has no title"
    return _find_violated_limit_reason(start, end, request) or FoundMoment(
        max(start, 0.0), min(end, request.duration_seconds), title
    )


def _find_violated_limit_reason(start: float, end: float, request: FindRequest) -> str:
    length = end - start
    if length <= 0:
        return "it does not end after it starts"
    if start < -_PROMPT_ROUNDING_SECONDS or end > request.duration_seconds + _PROMPT_ROUNDING_SECONDS:
        return f"it is not within the video, which takes {request.duration_seconds:.2f} seconds"
    if length < request.min_length - _FLOAT_TOLERANCE_SECONDS:
        return f"it takes {length:.2f} seconds, and at least {request.min_length:.2f} are asked for"
    if length > request.max_length + _FLOAT_TOLERANCE_SECONDS:
        return f"it takes {length:.2f} seconds, and at most {request.max_length:.2f} are asked for"
    return ""


def select_moments(ranked: Iterable[FoundMoment], max_count: int) -> Sequence[FoundMoment]:
    """Return the best moments sorted by time; of two that overlap, the first in `ranked` is kept."""
    kept: list[FoundMoment] = []
    for moment in ranked:
        if len(kept) < max_count and not any(_moments_overlap(moment, other) for other in kept):
            kept.append(moment)
    return sorted(kept, key=lambda moment: moment.start)


def _moments_overlap(one: FoundMoment, other: FoundMoment) -> bool:
    return one.start < other.end - _FLOAT_TOLERANCE_SECONDS and other.start < one.end - _FLOAT_TOLERANCE_SECONDS


def window_to_video_times_or_reason(start: float, end: float, request: RefineRequest) -> tuple[float, float] | str:
    """Convert times of a window to times of the video, or return the reason, in words for the model."""
    length = request.window_end - request.window_start
    if end <= start:
        return "end_time is not above start_time"
    if start < -_PROMPT_ROUNDING_SECONDS or end > length + _PROMPT_ROUNDING_SECONDS:
        return f"the times are not within 0.00 and {length:.2f}"
    last = min(request.window_end, request.duration_seconds)
    placed = max(start, 0.0) + request.window_start, min(end + request.window_start, last)
    return placed if placed[0] < placed[1] else "the times are not within the video"
