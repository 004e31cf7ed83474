"""AI models."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _check_address(text: str) -> str:
    """Refuse what no client could call; an empty address is that of a model that is not set up yet."""
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if text and not (is_address and text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("must be an http:// or https:// address, or empty")
    return text


Name = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"\S", description="Shown to users", examples=["MiniMax"])
]
BaseUrl = Annotated[
    str,
    Field(
        max_length=2000,
        description="http:// or https:// address of the server; empty where there is none yet",
        examples=["http://localhost:8007"],
        json_schema_extra={"pattern": r"^(https?://[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[1-9][0-9]{0,3})?(/[!-~]*)?)?$"},
    ),
    AfterValidator(_check_address),
]
ModelId = Annotated[
    str | None,
    Field(max_length=200, description="Sent as `model`; empty is null", examples=["qwen3-vl-235b-thinking"]),
]
TopP = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
TopK = Annotated[int | None, Field(ge=1, le=2**31 - 1)]


class ModelAnswer(BaseModel):
    name: str
    base_url: str
    model_id: str | None
    supports_video: bool
    top_p: float | None
    top_k: int | None
    model_key: str = Field(examples=["minimax"])
    updated_at: str | None = Field(description="ISO 8601, UTC without a zone", examples=["2026-11-22T11:26:51.454245"])


class ModelsAnswer(BaseModel):
    models: list[ModelAnswer]
    count: int


class ModelBody(BaseModel):
    """A model's whole config. Further fields are ignored."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"name": "MiniMax", "base_url": "http://localhost:8007", "top_p": 0.95}]},
    )

    name: Name
    base_url: BaseUrl
    model_id: ModelId = None
    supports_video: bool = False
    top_p: TopP = None
    top_k: TopK = None


class ModelChangesBody(BaseModel):
    """The fields to change; one that is null stays as it is."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"base_url": "http://localhost:8008"}]})

    name: Name | None = None
    base_url: BaseUrl | None = None
    model_id: ModelId = None
    supports_video: bool | None = None
    top_p: TopP = None
    top_k: TopK = None


class SeedBody(BaseModel):
    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"force": False}]})

    force: bool = Field(False, description="Also where there are models; those with the keys of defaults are replaced")


class SeedAnswer(BaseModel):
    seeded_count: int
    message: str = Field(examples=["Seeded 5 model configs"])


class DeletedModelAnswer(BaseModel):
    success: bool
    model_key: str
    message: str = Field(examples=["Model config 'minimax' deleted successfully"])
