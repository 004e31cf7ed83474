"""AI models."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.ai.model_fields import ApiKeyField, BaseUrl, ModelChanges, ModelId, ModelKindField, ModelName, TopK, TopP
from app.ai.registry import ModelKind


class ModelAnswer(BaseModel):
    name: str
    base_url: str
    model_id: str | None
    supports_video: bool
    top_p: float | None
    top_k: int | None
    kind: ModelKind
    has_api_key: bool = Field(description="Whether there is an API key, which itself is never shown")
    model_key: str = Field(examples=["minimax"])
    updated_at: str | None = Field(description="ISO 8601, UTC without a zone", examples=["2026-11-22T11:26:51.454245"])


class StoredModelAnswer(ModelAnswer):
    notice: str = Field(default="", description="Only where the API key of before was removed: that it was")


class ModelsAnswer(BaseModel):
    models: list[ModelAnswer]
    count: int


class ModelBody(BaseModel):
    """A model's whole config, which replaces the API key too. Further fields are ignored."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"name": "MiniMax", "base_url": "http://localhost:8007", "top_p": 0.95}]},
    )

    name: ModelName
    base_url: BaseUrl
    model_id: ModelId = None
    supports_video: bool = False
    top_p: TopP = None
    top_k: TopK = None
    kind: ModelKindField = ModelKind.CHAT
    api_key: ApiKeyField = SecretStr("")


class ModelChangesBody(ModelChanges):
    """The fields to change; one that is null stays as it is, and an empty API key removes the one there is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"base_url": "http://localhost:8008"}]})


class SeedBody(BaseModel):
    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"force": False}]})

    force: bool = Field(False, description="Also where there are models; those with the keys of defaults are replaced")


class SeedAnswer(BaseModel):
    seeded_count: int
    message: str = Field(examples=["Seeded 6 model configs"])


class DeletedModelAnswer(BaseModel):
    success: bool
    model_key: str
    message: str = Field(examples=["Model config 'minimax' deleted successfully"])
