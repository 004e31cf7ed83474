"""What several resources share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field


def _refuse_truth(value: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0; a number in quotes is taken."""
    if isinstance(value, bool):
        raise ValueError("Input should be a valid number")
    return value


Seconds = Annotated[float, BeforeValidator(_refuse_truth), Field(allow_inf_nan=False, description="seconds")]


class Error(BaseModel):
    """Every error."""

    detail: str = Field(examples=["Video not found"])
