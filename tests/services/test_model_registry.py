"""The model registry in Redis."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.services.model_registry import DEFAULT_MODELS, ModelConfig, ModelRegistry


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushdb()
        yield redis


async def test_an_empty_registry_is_seeded_with_the_defaults(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    assert await registry.seed() == 5
    models = await registry.list_models()
    assert list(models) == ["minimax", "parakeet", "qwen", "qwen3_omni", "qwen3_vl_fp8"]
    assert models["qwen3_vl_fp8"].supports_video
    assert (models["qwen3_omni"].top_p, models["qwen3_omni"].top_k) == (0.95, 20)
    assert models["qwen"].model_id == "qwen3-vl-235b-thinking"
    assert all(model.updated_at and model.base_url for model in models.values())


async def test_a_registry_that_has_a_model_is_left_alone(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.put("mine", ModelConfig("Mine", "http://localhost:1"))
    assert await registry.seed() == 0
    assert list(await registry.list_models()) == ["mine"]


async def test_a_config_comes_back_as_it_was_put(redis: Redis) -> None:
    config = ModelConfig("Name", "http://localhost:1", model_id="m", supports_video=True, top_p=0.5, top_k=7)
    stored = await ModelRegistry(redis).put("key", config)
    assert await ModelRegistry(redis).get("key") == stored
    assert stored.updated_at is not None
    assert ModelConfig(**{**{f: getattr(stored, f) for f in stored.__slots__}, "updated_at": None}) == config


async def test_what_is_not_known_is_written_as_empty_text(redis: Redis) -> None:
    await ModelRegistry(redis).put("minimax", DEFAULT_MODELS["minimax"])
    fields = await redis.hgetall("model:config:minimax")
    assert (fields["model_id"], fields["top_p"], fields["supports_video"]) == ("", "", "false")
    assert await redis.smembers("model:config:_keys") == {"minimax"}


async def test_a_deleted_model_is_gone(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.seed()
    assert await registry.delete("qwen")
    assert not await registry.delete("qwen")
    assert await registry.get("qwen") is None
    assert "qwen" not in await registry.list_models()
