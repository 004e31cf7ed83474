"""`/api/admin/models`: the registry of AI models."""

from typing import Annotated, Any, Self

from fastapi import APIRouter, Body, Depends, Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from starlette.responses import Response

from app.ai.model_fields import (
    KEY_REMOVED_NOTICE,
    MODEL_KEY_PATTERN,
    ApiKeyField,
    BaseUrl,
    ModelChanges,
    ModelId,
    ModelKindField,
    ModelName,
    TopK,
    TopP,
    check_model_key,
    model_to_registry_values,
)
from app.ai.registry import DEFAULT_MODELS, ModelConfig, ModelKind, ModelRegistry
from app.api.answers import Error, Responses, answer_dataclass, json_answer
from app.api.dependencies import ResourcesDep
from app.core.masking import mask_secrets

_NO_REDIS: Responses = {503: {"model": Error, "description": "Redis is not available"}}
router = APIRouter(prefix="/api/admin/models", tags=["models"], responses=_NO_REDIS)

_NOT_FOUND: Responses = {404: {"model": Error, "description": "No such model; names those there are"}}
_CHANGED_MEANWHILE: Responses = {409: {"model": Error, "description": "Another request changed the model meanwhile"}}


async def get_model_registry(resources: ResourcesDep) -> ModelRegistry:
    return ModelRegistry(resources.redis)


ModelRegistryDep = Annotated[ModelRegistry, Depends(get_model_registry)]
ModelKey = Annotated[
    str,
    Path(description="Key of the model", examples=["minimax"], json_schema_extra={"pattern": MODEL_KEY_PATTERN}),
    AfterValidator(check_model_key),
]


@answer_dataclass
class ModelAnswer:
    name: str
    base_url: str
    model_id: str | None
    supports_video: bool
    top_p: float | None
    top_k: int | None
    kind: ModelKind
    has_api_key: Annotated[bool, Field(description="Whether there is an API key, which itself is never shown")]
    model_key: Annotated[str, Field(examples=["minimax"])]
    updated_at: Annotated[str | None, Field(description="UTC", examples=["2026-11-22T11:26:51.454245"])]

    @classmethod
    def from_config(cls, key: str, config: ModelConfig) -> Self:
        return cls(
            name=config.name,
            base_url=mask_secrets(config.base_url),  # an unchecked one in the registry may name a user
            model_id=config.model_id,
            supports_video=config.supports_video,
            top_p=config.top_p,
            top_k=config.top_k,
            kind=config.kind,
            has_api_key=bool(config.api_key),
            model_key=key,
            updated_at=config.updated_at,
        )


@answer_dataclass
class ModelKeyRemovedAnswer(ModelAnswer):
    notice: Annotated[str, Field(description="That the key was removed, and why")]


@answer_dataclass
class ModelsAnswer:
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


class SeedModelsBody(BaseModel):
    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"force": False}]})

    force: bool = Field(False, description="Also where there are models; those with the keys of defaults are replaced")


@answer_dataclass
class SeededModelsAnswer:
    seeded_count: int
    message: Annotated[str, Field(examples=["Seeded 6 model configs"])]


@answer_dataclass
class DeletedModelAnswer:
    success: bool
    model_key: str
    message: Annotated[str, Field(examples=["Model config 'minimax' deleted successfully"])]


@router.get("", response_model=ModelsAnswer)
async def list_models(registry: ModelRegistryDep) -> Response:
    """All models of the registry, ordered by key."""
    found = await registry.list_models()
    models = [ModelAnswer.from_config(key, config) for key, config in found.items()]
    return json_answer(ModelsAnswer(models=models, count=len(models)))


@router.get("/defaults/all", response_model=dict[str, ModelAnswer])
async def list_default_models() -> Response:
    """The default models, by key, which an empty registry is filled with."""
    return json_answer({key: ModelAnswer.from_config(key, config) for key, config in DEFAULT_MODELS.items()})


@router.post("/seed", response_model=SeededModelsAnswer)
async def seed_models(registry: ModelRegistryDep, body: Annotated[SeedModelsBody | None, Body()] = None) -> Response:
    """Fill an empty registry with the default models; with `force` also one that is not empty."""
    count = await registry.seed_defaults(force=body is not None and body.force)
    return json_answer(SeededModelsAnswer(seeded_count=count, message=f"Seeded {count} model configs"))


@router.get("/{key}", response_model=ModelAnswer, responses=_NOT_FOUND)
async def get_model(key: ModelKey, registry: ModelRegistryDep) -> Response:
    """One model of the registry."""
    return json_answer(ModelAnswer.from_config(key, await registry.get_existing_model(key)))


@router.post("/{key}", response_model=ModelKeyRemovedAnswer | ModelAnswer)
async def put_model(key: ModelKey, body: ModelBody, registry: ModelRegistryDep) -> Response:
    """Create a model, or replace all of its fields, its API key too."""
    values: dict[str, Any] = model_to_registry_values(body, exclude_none=False)
    return json_answer(_make_model_answer(key, await registry.put_model(key, ModelConfig(**values))))


@router.patch(
    "/{key}", response_model=ModelKeyRemovedAnswer | ModelAnswer, responses={**_NOT_FOUND, **_CHANGED_MEANWHILE}
)
async def change_model(key: ModelKey, body: ModelChangesBody, registry: ModelRegistryDep) -> Response:
    """Change the given fields that are not null; a `base_url` of another origin without a key removes the API key."""
    changed = await registry.update_model(key, model_to_registry_values(body, exclude_none=True))
    return json_answer(_make_model_answer(key, changed))


@router.delete("/{key}", response_model=DeletedModelAnswer, responses=_NOT_FOUND)
async def delete_model(key: ModelKey, registry: ModelRegistryDep) -> Response:
    """Delete a model from the registry."""
    await registry.delete_model(key)
    message = f"Model config '{key}' deleted successfully"
    return json_answer(DeletedModelAnswer(success=True, model_key=key, message=message))


def _make_model_answer(key: str, config: ModelConfig) -> ModelAnswer:
    stored = ModelAnswer.from_config(key, config)
    return ModelKeyRemovedAnswer(**vars(stored), notice=KEY_REMOVED_NOTICE) if config.is_key_removed else stored
