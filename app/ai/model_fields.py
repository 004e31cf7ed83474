"""Fields of a registered model and their validation, for the HTTP API and the command line."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from app.ai.registry import ModelKind
from app.core.addresses import check_service_address
from app.core.text import find_control_character


def _check_base_url(text: str) -> str:
    check_service_address(text)
    return text


def _check_api_key(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("must be printable ASCII without spaces")
    return secret


def check_model_key(key: str) -> str:
    if not re.fullmatch(MODEL_KEY_PATTERN, key):
        raise ValueError("must be 1 to 64 letters, digits and any of _ . - after the first")
    return key


def _check_model_name(name: str) -> str:
    if not name.strip():
        raise ValueError("must hold more than spaces")
    return _check_single_line(name)


def _check_single_line(text: str) -> str:
    if found := find_control_character(text):
        raise ValueError(f"must not hold the character {found}")
    return text


# Notice for a write that removes the API key because the address has changed.
KEY_REMOVED_NOTICE = "The API key was removed, because the request has none for this address: set it again"

MODEL_KEY_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Shown to users",
        examples=["MiniMax"],
        json_schema_extra={"pattern": r"\S"},
    ),
    AfterValidator(_check_model_name),
]
ModelKindField = Annotated[
    ModelKind,
    Field(
        strict=False,
        description="What the server speaks: `chat` and `transcription` as OpenAI's do, `parakeet` takes the address "
        "of audio; `embedding` is OpenAI's, for searches by meaning; `local` is no server",
    ),
]
BaseUrl = Annotated[
    str,
    Field(
        max_length=2000,
        description="http:// or https:// address of the server, without ? and #; empty: this machine answers itself. "
        "Private and loopback addresses are called, link-local ones and those of clouds' metadata services never. "
        "An address with another scheme, host or port removes the API key, unless the request has one too",
        examples=["http://localhost:8007"],
        json_schema_extra={
            "pattern": r"^(https?://[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[1-9][0-9]{0,3})?(/[!\"$&->@-\[\]-~]*)?)?$"
        },
    ),
    AfterValidator(_check_base_url),
]
ModelId = Annotated[
    Annotated[str, AfterValidator(_check_single_line)] | None,
    Field(max_length=200, description="Sent as `model`; empty is null", examples=["qwen3-vl-235b-thinking"]),
]
TopP = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
TopK = Annotated[int | None, Field(ge=1, le=2**31 - 1)]
ApiKeyField = Annotated[
    SecretStr,
    Field(
        max_length=4096,
        description="Sent as a bearer token to the scheme, host and port of base_url and nowhere else, and never shown "
        "again; empty: none",
        json_schema_extra={"pattern": "^[!-~]*$"},
    ),
    AfterValidator(_check_api_key),
]


class ModelChanges(BaseModel):
    """The fields to change; null leaves a field as it is."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    name: ModelName | None = None
    kind: ModelKindField | None = None
    base_url: BaseUrl | None = None
    model_id: ModelId = None
    supports_video: bool | None = None
    top_p: TopP = None
    top_k: TopK = None
    api_key: ApiKeyField | None = None


def model_to_registry_values(body: BaseModel, *, exclude_none: bool) -> dict[str, object]:
    """Return the fields for the registry, with the API key as plain text."""
    values = body.model_dump(exclude_none=exclude_none)
    return {key: value.get_secret_value() if isinstance(value, SecretStr) else value for key, value in values.items()}
