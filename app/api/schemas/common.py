"""What several resources share."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticKnownError

from app.core.text import find_control, find_control_in_lines, is_utf8


def _refuse_truth(value: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0; a number in quotes is taken."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _refuse_controls(find: Callable[[str], str]) -> AfterValidator:
    """Refuse what `find` finds, and lone surrogates, which UTF-8 cannot encode."""

    def check(text: str) -> str:
        if found := find(text):
            raise ValueError(f"must not hold the character {found}")
        if not is_utf8(text):
            raise PydanticKnownError("string_unicode")
        return text

    return AfterValidator(check)


Line = Annotated[str, _refuse_controls(find_control)]
Text = Annotated[str, _refuse_controls(find_control_in_lines)]
Seconds = Annotated[float, BeforeValidator(_refuse_truth), Field(allow_inf_nan=False, description="seconds")]


class Error(BaseModel):
    """Every error."""

    detail: str = Field(examples=["Video not found"])
