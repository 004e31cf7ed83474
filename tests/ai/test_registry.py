"""The model registry in Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.errors import InvalidInput, ModelNotFound
from app.ai.registry import DEFAULT_MODELS, ModelConfig, ModelRegistry


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
    await registry.delete("qwen")
    with pytest.raises(ModelNotFound, match="there are: minimax, parakeet, qwen3_omni"):
        await registry.delete("qwen")
    assert await registry.get("qwen") is None
    assert "qwen" not in await registry.list_models()


async def test_seeding_by_force_replaces_the_defaults_and_keeps_the_rest(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.put("mine", ModelConfig("Mine", "http://localhost:1"))
    await registry.put("qwen", ModelConfig("Changed", "http://localhost:1"))
    assert await registry.seed(force=True) == 5
    assert len(await registry.list_models()) == 6
    assert (await registry.find("qwen")).name == "Qwen3-VL"


async def test_clients_that_change_different_fields_at_once_lose_nothing(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.seed()
    changes: list[dict[str, Any]] = [{"name": "New"}, {"model_id": "m"}, {"top_k": 3}, {"top_p": 0.5}] * 5
    await asyncio.gather(*(registry.change("qwen", change) for change in changes))
    found = await registry.find("qwen")
    assert (found.name, found.model_id, found.top_k, found.top_p) == ("New", "m", 3, 0.5)


async def test_a_model_that_is_gone_cannot_be_changed_back_into_being(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    with pytest.raises(ModelNotFound, match="there are: none"):
        await registry.change("qwen", {"name": "New"})
    assert await registry.list_models() == {}


@pytest.mark.parametrize("key", ["seed", "defaults"])
async def test_a_part_of_another_address_is_no_key(redis: Redis, key: str) -> None:
    with pytest.raises(InvalidInput, match=key):
        await ModelRegistry(redis).put(key, DEFAULT_MODELS["qwen"])


async def test_a_hash_of_the_previous_backend_is_read_without_its_address(redis: Redis) -> None:
    await redis.hset(
        "model:config:old",
        mapping={"name": "Old", "ssh_host": "user@gateway", "ssh_local_port": "8007", "top_p": "high", "top_k": ""},
    )
    assert await ModelRegistry(redis).find("old") == ModelConfig("Old", "")
