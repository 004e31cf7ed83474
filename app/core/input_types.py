"""Types of input for Pydantic: text without control characters, and numbers that are no booleans."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticKnownError

from app.core.text import find_control, find_control_in_lines, is_utf8, to_nfc


def _refuse_boolean(kind: Literal["float_type", "int_type"]) -> BeforeValidator:
    """Refuse true and false, which Python takes for 1 and 0; a number in quotes is accepted."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


def _refuse_controls(find: Callable[[str], str]) -> AfterValidator:
    """Refuse what `find` finds, and lone surrogates, which UTF-8 cannot encode."""

    def check(text: str) -> str:
        if found := find(text):
            raise ValueError(f"must not hold the character {found}")
        if not is_utf8(text):
            raise PydanticKnownError("string_unicode")
        return text

    return AfterValidator(check)


Number = Annotated[float, _refuse_boolean("float_type")]
WholeNumber = Annotated[int, _refuse_boolean("int_type")]
Line = Annotated[str, _refuse_controls(find_control)]
Text = Annotated[str, _refuse_controls(find_control_in_lines)]
NormalizedLine = Annotated[Line, AfterValidator(to_nfc)]
NormalizedText = Annotated[Text, AfterValidator(to_nfc)]
