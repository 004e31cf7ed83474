"""The model registry in Redis."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from app.ai.registry import DEFAULT_MODELS, ModelConfig, ModelKind, ModelRegistry
from app.core.errors import InvalidInput, ModelNotFound


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushdb()
        yield redis


ALL = ["local", "minimax", "parakeet", "qwen", "qwen3_omni", "qwen3_vl_fp8"]


async def test_an_empty_registry_is_seeded_with_the_defaults(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    assert await registry.seed_defaults() == 6
    models = await registry.list_models()
    assert list(models) == ALL
    assert models["qwen3_vl_fp8"].supports_video
    assert (models["qwen3_omni"].top_p, models["qwen3_omni"].top_k) == (0.95, 20)
    assert models["qwen"].model_id == "qwen3-vl-235b-thinking"
    assert (models["parakeet"].kind, models["local"].kind) == (ModelKind.PARAKEET, ModelKind.LOCAL)
    assert all(model.updated_at for model in models.values())


async def test_until_an_address_is_set_every_default_is_answered_by_this_machine(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    assert all(model.is_local for model in (await registry.list_models()).values())
    assert not (await registry.update_model("qwen", {"base_url": "http://localhost:1"})).is_local
    assert (await registry.update_model("local", {"base_url": "http://localhost:1"})).is_local


async def test_a_registry_that_has_a_model_is_left_alone(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.update_model("qwen", {"name": "Changed"})
    await registry.delete_model("minimax")
    assert await registry.seed_defaults() == 0
    assert (await registry.get_existing_model("qwen")).name == "Changed"
    assert await registry.get_model("minimax") is None


async def test_a_flushed_registry_has_the_defaults_again_at_its_next_use(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    for use in (
        registry.list_models,
        lambda: registry.get_existing_model("qwen"),
        lambda: registry.put_model("mine", ModelConfig("Mine")),
        lambda: registry.update_model("qwen", {"top_k": 1}),
        lambda: registry.delete_model("parakeet"),
    ):
        await registry.seed_defaults()
        await redis.flushdb()
        await use()
        assert set(ALL) - {"parakeet"} <= set(await registry.list_models())


async def test_seeding_at_once_with_a_change_takes_nothing_back(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    for _ in range(10):
        await redis.flushdb()
        await asyncio.gather(
            *(registry.seed_defaults() for _ in range(5)), registry.put_model("qwen", ModelConfig("Changed"))
        )
        assert (await registry.get_existing_model("qwen")).name == "Changed"


async def test_a_registry_that_another_process_seeds_meanwhile_has_the_defaults(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(redis)

    async def seed_too_late() -> int:
        await ModelRegistry(redis).seed_defaults()
        return 0

    monkeypatch.setattr(registry, "seed_defaults", seed_too_late)
    assert await registry.get_model("qwen")
    await redis.flushdb()
    assert list(await registry.list_models()) == ALL


async def test_a_config_comes_back_as_it_was_put(redis: Redis) -> None:
    config = ModelConfig(
        "Name", "http://localhost:1", "m", True, 0.5, 7, kind=ModelKind.TRANSCRIPTION, api_key="sk-secret"
    )
    stored = await ModelRegistry(redis).put_model("key", config)
    assert await ModelRegistry(redis).get_model("key") == stored
    assert stored.updated_at is not None
    assert replace(stored, updated_at=None) == config


def test_an_api_key_is_not_in_what_a_config_looks_like() -> None:
    assert "sk-secret" not in repr(ModelConfig("Name", api_key="sk-secret"))


async def test_an_api_key_is_kept_by_other_changes_and_removed_by_an_empty_one(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.update_model("qwen", {"api_key": "sk-secret"})
    assert (await registry.update_model("qwen", {"top_k": 3})).api_key == "sk-secret"
    assert (await registry.update_model("qwen", {"api_key": ""})).api_key == ""
    assert await redis.hget("model:config:qwen", "api_key") == ""


async def test_what_is_not_known_is_written_as_empty_text(redis: Redis) -> None:
    await ModelRegistry(redis).put_model("minimax", DEFAULT_MODELS["minimax"])
    fields = await redis.hgetall("model:config:minimax")
    assert (fields["model_id"], fields["top_p"], fields["supports_video"]) == ("", "", "false")
    assert (fields["kind"], fields["base_url"], fields["api_key"]) == ("chat", "", "")
    assert await redis.smembers("model:config:_keys") == set(ALL)


async def test_a_deleted_model_is_gone(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.seed_defaults()
    await registry.delete_model("qwen")
    with pytest.raises(ModelNotFound, match="there are: local, minimax, parakeet, qwen3_omni"):
        await registry.delete_model("qwen")
    assert await registry.get_model("qwen") is None
    assert "qwen" not in await registry.list_models()


async def test_seeding_by_force_replaces_the_defaults_and_keeps_the_rest(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.put_model("mine", ModelConfig("Mine", "http://localhost:1"))
    await registry.put_model("qwen", ModelConfig("Changed", "http://localhost:1"))
    assert await registry.seed_defaults(force=True) == 6
    assert len(await registry.list_models()) == 7
    assert (await registry.get_existing_model("qwen")).name == "Qwen3-VL"


async def test_clients_that_change_different_fields_at_once_lose_nothing(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.seed_defaults()
    changes: list[dict[str, Any]] = [{"name": "New"}, {"model_id": "m"}, {"top_k": 3}, {"top_p": 0.5}] * 5
    await asyncio.gather(*(registry.update_model("qwen", change) for change in changes))
    found = await registry.get_existing_model("qwen")
    assert (found.name, found.model_id, found.top_k, found.top_p) == ("New", "m", 3, 0.5)


async def test_a_model_that_is_gone_cannot_be_changed_back_into_being(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.delete_model("qwen")
    with pytest.raises(ModelNotFound, match="there are: local, "):
        await registry.update_model("qwen", {"name": "New"})
    assert "qwen" not in await registry.list_models()


@pytest.mark.parametrize("key", ["seed", "defaults"])
async def test_a_part_of_another_address_is_no_key(redis: Redis, key: str) -> None:
    with pytest.raises(InvalidInput, match=key):
        await ModelRegistry(redis).put_model(key, DEFAULT_MODELS["qwen"])


@pytest.mark.parametrize(
    ("key", "fields", "kind"),
    [
        ("old", {}, ModelKind.CHAT),
        ("parakeet", {}, ModelKind.PARAKEET),
        ("local", {}, ModelKind.LOCAL),
        ("parakeet", {"kind": "transcription"}, ModelKind.TRANSCRIPTION),
        ("old", {"kind": "telepathy"}, ModelKind.CHAT),
    ],
)
async def test_a_hash_of_the_previous_backend_is_read_without_its_address(
    redis: Redis, key: str, fields: dict[str, str], kind: ModelKind
) -> None:
    old = {"name": "Old", "ssh_host": "user@gateway", "ssh_local_port": "8007", "top_p": "high", "top_k": ""}
    for name, value in {**old, **fields}.items():
        await redis.hset(f"model:config:{key}", name, value)
    assert await ModelRegistry(redis).get_existing_model(key) == ModelConfig("Old", kind=kind)


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"base_url": "http://localhost:8007"}, ""),
        ({"base_url": "http://localhost:8007", "kind": "chat"}, "http://localhost:8007"),
        ({"base_url": "http://gpu:8007"}, "http://gpu:8007"),
    ],
)
async def test_a_former_default_that_nobody_set_is_no_address(
    redis: Redis, fields: dict[str, str], address: str
) -> None:
    await redis.sadd("model:config:_keys", "minimax")
    for name, value in {"name": "MiniMax", **fields}.items():
        await redis.hset("model:config:minimax", name, value)
    assert (await ModelRegistry(redis).get_existing_model("minimax")).base_url == address
