"""Types of input for Pydantic, and one sentence for each value that Pydantic refuses."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticKnownError

from app.core.masking import mask_secrets
from app.core.text import escape_controls, find_control_character, find_control_except_line_breaks, is_utf8, to_nfc


def _make_boolean_refuser(error_type: Literal["float_type", "int_type"]) -> BeforeValidator:

    def check_not_boolean(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(error_type)
        return value

    return BeforeValidator(check_not_boolean)


def _make_control_refuser(find: Callable[[str], str]) -> AfterValidator:

    def check_characters(text: str) -> str:
        if found := find(text):
            raise ValueError(f"must not hold the character {found}")
        if not is_utf8(text):
            raise PydanticKnownError("string_unicode")
        return text

    return AfterValidator(check_characters)


InputNumber = Annotated[float, _make_boolean_refuser("float_type")]
InputInteger = Annotated[int, _make_boolean_refuser("int_type")]
InputLine = Annotated[str, _make_control_refuser(find_control_character)]
InputText = Annotated[str, _make_control_refuser(find_control_except_line_breaks)]
NormalizedLine = Annotated[InputLine, AfterValidator(to_nfc)]
NormalizedText = Annotated[InputText, AfterValidator(to_nfc)]


_LONGEST_SHOWN = 40
_LONGEST_NAME = 100
_LARGEST_SHOWN = 10**_LONGEST_SHOWN  # Python writes no integer of thousands of digits
_SECRET_FIELDS = frozenset({"api_key"})

# What a value of each kind must be, by the first word of Pydantic's error types.
_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "text",
    "bytes": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a JSON object",
    "mapping": "a JSON object",
    "model": "a JSON object",
    "dataclass": "a JSON object",
    "date": "a date as YYYY-MM-DD",
    "time": "a time as HH:MM:SS",
    "datetime": "a time as YYYY-MM-DDTHH:MM:SSZ",
    "url": "an address",
    "uuid": "a UUID",
}
# What a limit asks for; in braces, what the error says of it.
_LIMITS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "none_required": "null",
}
# The same for lengths, of which the value itself says nothing.
_LENGTHS = {
    "string_too_short": ("min_length", "must have at least {} character"),
    "string_too_long": ("max_length", "must have at most {} character"),
    "bytes_too_short": ("min_length", "must have at least {} byte"),
    "bytes_too_long": ("max_length", "must have at most {} byte"),
    "too_short": ("min_length", "must have at least {} item"),
    "too_long": ("max_length", "must have at most {} item"),
}


def describe_validation_error(name: str, problem: Mapping[str, Any], known_fields: Iterable[str] = ()) -> str:
    """Return one sentence for a Pydantic error about the value `name`, with the known fields for an unknown name."""
    name = escape_controls(name[:_LONGEST_NAME])
    kind, context = str(problem["type"]), problem.get("ctx") or {}
    if kind in ("value_error", "assertion_error"):
        return f"{name} {context.get('error', 'cannot be accepted')}"
    if kind == "missing":
        return f"{name} is missing"
    if kind == "extra_forbidden":
        known = ", ".join(known_fields)
        return f"{name} is no field of this request" + (f"; there are: {known}" if known else "")
    if kind in _LENGTHS:
        if kind.startswith("too_") and isinstance(problem.get("input"), str):
            kind = f"string_{kind}"  # Pydantic calls it that only where nothing was done to the text before
        return f"{name} {_describe_length_limit(*_LENGTHS[kind], context)}"
    expected = _describe_expected_value(kind, context)
    if not expected:
        return f"{name} cannot be accepted"
    shown = _format_refused_value(problem["input"]) if "input" in problem and name not in _SECRET_FIELDS else ""
    return f"{name} must be {expected}" + (f", not {shown}" if shown else "")


def _describe_length_limit(limit_name: str, sentence: str, context: Mapping[str, Any]) -> str:
    length = int(context.get(limit_name) or 0)
    if limit_name == "min_length" and length == 1:
        return "must not be empty"
    return sentence.format(length) + ("" if length == 1 else "s")


def _describe_expected_value(error_type: str, context: Mapping[str, Any]) -> str:
    if error_type == "string_pattern_mismatch":
        return f"text of the form {context.get('pattern')}"
    if error_type == "string_unicode":
        return "text that UTF-8 can hold"
    if error_type not in _LIMITS:
        return _TYPE_NAMES.get(error_type.partition("_")[0], "")
    try:
        return _LIMITS[error_type].format(**{key: _format_limit_value(limit) for key, limit in context.items()})
    except KeyError:
        return ""


def _format_limit_value(limit: Any) -> str:
    is_whole = isinstance(limit, float) and limit.is_integer()
    return str(int(limit) if is_whole else limit)


def _format_refused_value(value: Any) -> str:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "infinity"
        case int() if abs(value) > _LARGEST_SHOWN:
            return ""
        case None | bool() | int() | float():
            shown = json.dumps(value)
        case str() if value.isprintable():
            shown = json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return "a list"
        case dict():
            return "a JSON object"
        case _:
            return ""
    return mask_secrets(shown) if len(shown) <= _LONGEST_SHOWN else ""
