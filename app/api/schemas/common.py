"""What several resources share."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.core.validation import InputNumber

Seconds = Annotated[InputNumber, Field(allow_inf_nan=False, description="seconds")]


class Error(BaseModel):
    """Every error."""

    detail: str = Field(examples=["Video not found"])
