"""What several resources share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticKnownError

from app.core.text import is_utf8


def _refuse_truth(value: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0; a number in quotes is taken."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _refuse_unstorable(text: str) -> str:
    """Refuse what PostgreSQL stores in no text: U+0000, and lone surrogates, which UTF-8 cannot encode."""
    if "\0" in text:
        raise ValueError("must not hold the character U+0000")
    if not is_utf8(text):
        raise PydanticKnownError("string_unicode")
    return text


Text = Annotated[str, AfterValidator(_refuse_unstorable)]
Seconds = Annotated[float, BeforeValidator(_refuse_truth), Field(allow_inf_nan=False, description="seconds")]


class Error(BaseModel):
    """Every error."""

    detail: str = Field(examples=["Video not found"])
