"""`/api/admin/models`: the registry of AI models."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path
from pydantic import AfterValidator
from starlette.responses import Response

from app.ai.model_fields import KEY_REMOVED_NOTICE, MODEL_KEY_PATTERN, check_model_key, to_registry_values
from app.ai.registry import DEFAULT_MODELS, ModelConfig, ModelRegistry
from app.api.answers import Error, json_answer
from app.api.dependencies import LiveState
from app.api.schemas.models import (
    DeletedModelAnswer,
    ModelAnswer,
    ModelBody,
    ModelChangesBody,
    ModelsAnswer,
    SeedAnswer,
    SeedBody,
    StoredModelAnswer,
)
from app.core.masking import mask_secrets

router = APIRouter(
    prefix="/api/admin/models",
    tags=["models"],
    responses={503: {"model": Error, "description": "Redis is not available"}},
)

_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": Error, "description": "No such model; names those there are"}
}
_CHANGED_MEANWHILE: dict[int | str, dict[str, Any]] = {
    409: {"model": Error, "description": "The address was changed while an API key was set for it"}
}


async def get_registry(redis: LiveState) -> ModelRegistry:
    """Give the registry of the application's Redis."""
    return ModelRegistry(redis)


Registry = Annotated[ModelRegistry, Depends(get_registry)]
ModelKey = Annotated[
    str,
    Path(description="Key of the model", examples=["minimax"], json_schema_extra={"pattern": MODEL_KEY_PATTERN}),
    AfterValidator(check_model_key),
]


@router.get("", response_model=ModelsAnswer)
async def list_models(registry: Registry) -> Response:
    """All models, ordered by key."""
    found = await registry.list_models()
    return json_answer({"models": [_answer(key, config) for key, config in found.items()], "count": len(found)})


@router.get("/defaults/all", response_model=dict[str, ModelAnswer])
async def list_default_models() -> Response:
    """The built-in defaults by key, which an empty registry is filled with."""
    return json_answer({key: _answer(key, config) for key, config in DEFAULT_MODELS.items()})


@router.post("/seed", response_model=SeedAnswer)
async def seed_models(registry: Registry, body: Annotated[SeedBody | None, Body()] = None) -> Response:
    """Fill an empty registry with the defaults; with `force` also one that is not empty."""
    count = await registry.seed_defaults(force=body is not None and body.force)
    return json_answer({"seeded_count": count, "message": f"Seeded {count} model configs"})


@router.get("/{key}", response_model=ModelAnswer, responses=_NOT_FOUND)
async def get_model(key: ModelKey, registry: Registry) -> Response:
    """One model."""
    return json_answer(_answer(key, await registry.get_existing_model(key)))


@router.post("/{key}", response_model=StoredModelAnswer)
async def put_model(key: ModelKey, body: ModelBody, registry: Registry) -> Response:
    """Create a model, or replace all of its fields, its API key too."""
    return json_answer(_answer(key, await registry.put_model(key, _read(body))))


@router.patch("/{key}", response_model=StoredModelAnswer, responses={**_NOT_FOUND, **_CHANGED_MEANWHILE})
async def change_model(key: ModelKey, body: ModelChangesBody, registry: Registry) -> Response:
    """Change the fields that are given and not null.

    A `base_url` of another scheme, host or port removes the API key where the request has none; `notice` says so.
    """
    return json_answer(_answer(key, await registry.update_model(key, to_registry_values(body, exclude_none=True))))


@router.delete("/{key}", response_model=DeletedModelAnswer, responses=_NOT_FOUND)
async def delete_model(key: ModelKey, registry: Registry) -> Response:
    """Delete a model."""
    await registry.delete_model(key)
    return json_answer({"success": True, "model_key": key, "message": f"Model config '{key}' deleted successfully"})


def _read(body: ModelBody) -> ModelConfig:
    values: dict[str, Any] = to_registry_values(body, exclude_none=False)
    return ModelConfig(**values)


def _answer(key: str, config: ModelConfig) -> dict[str, Any]:
    values = asdict(config)
    updated_at, api_key, is_key_removed = (values.pop(name) for name in ("updated_at", "api_key", "is_key_removed"))
    notice = {"notice": KEY_REMOVED_NOTICE} if is_key_removed else {}
    values["base_url"] = mask_secrets(config.base_url)  # one that came into the registry unchecked may have a user
    return {**values, "has_api_key": bool(api_key), "model_key": key, "updated_at": updated_at, **notice}
