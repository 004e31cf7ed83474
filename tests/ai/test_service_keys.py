"""A stored API key goes to the scheme, host and port that it was set for, and nowhere else."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from app.ai import registry as registry_module
from app.ai.models import RegisteredModels
from app.ai.protocols import FindRequest, Segment
from app.ai.registry import ModelConfig, ModelRegistry
from app.core.config import Settings
from app.core.errors import Conflict, StageFailed, VideoMomentsError
from tests.ai.model_server import ModelServer, Reply

REQUEST = FindRequest([Segment("Hello.", 0.0, 60.0)], (), 60.0, 5.0, 60.0, 1, 3)
KEY = "sk-canary-0123456789abcdef"
HASH = "model:config:qwen"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ModelServer, ModelServer]]:
    with ModelServer() as first, ModelServer() as second:
        yield first, second


@pytest.fixture
def own(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    servers[0].reset()
    return servers[0]


@pytest.fixture
def other(servers: tuple[ModelServer, ModelServer]) -> ModelServer:
    servers[1].reset()
    return servers[1]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushdb()
        yield redis


@pytest.fixture
async def models(redis: Redis) -> AsyncIterator[RegisteredModels]:
    models = RegisteredModels(Settings(), redis)
    yield models
    await models.aclose()


async def ask(models: RegisteredModels) -> None:
    await (await models.get_finder("qwen")).find(REQUEST, lambda done: None)


def sent_keys(server: ModelServer) -> list[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


async def test_a_change_of_the_origin_without_a_key_removes_the_key(
    redis: Redis, models: RegisteredModels, own: ModelServer, other: ModelServer
) -> None:
    registry = ModelRegistry(redis)
    await registry.update_model("qwen", {"base_url": own.url, "api_key": KEY})
    assert (await registry.update_model("qwen", {"base_url": f"{own.url}/v1"})).api_key == KEY
    await ask(models)
    changed = await registry.update_model("qwen", {"base_url": other.url})
    assert (changed.api_key, changed.is_key_removed) == ("", True)
    await ask(models)
    assert (await registry.update_model("qwen", {"base_url": own.url})).api_key == ""  # nor does it come back
    await ask(models)
    assert sent_keys(own) == [f"Bearer {KEY}", None]
    assert sent_keys(other) == [None]


@pytest.mark.parametrize("address", ["", "http://localhost:2", "https://localhost:1", "http://127.0.0.1:1"])
async def test_another_scheme_host_or_port_removes_the_key(redis: Redis, address: str) -> None:
    registry = ModelRegistry(redis)
    await registry.update_model("qwen", {"base_url": "http://localhost:1", "api_key": KEY})
    await registry.update_model("qwen", {"base_url": address})
    assert await redis.hget(HASH, "api_key") == ""


async def test_a_key_that_was_set_without_an_address_goes_to_none(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    await registry.update_model("qwen", {"api_key": KEY})
    changed = await registry.update_model("qwen", {"base_url": "http://localhost:1"})
    assert (changed.api_key, changed.is_key_removed) == ("", True)


async def test_a_replaced_config_has_no_key_of_before(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    assert not (await registry.put_model("mine", ModelConfig("Mine", "http://localhost:1", api_key=KEY))).is_key_removed
    stored = await registry.put_model("mine", ModelConfig("Mine", "http://localhost:1"))
    assert (stored.api_key, stored.is_key_removed) == ("", True)


async def test_an_address_that_changes_behind_the_registry_gets_no_key(
    redis: Redis, models: RegisteredModels, own: ModelServer, other: ModelServer
) -> None:
    registry = ModelRegistry(redis)
    await registry.update_model("qwen", {"base_url": own.url, "api_key": KEY})
    await redis.hset(HASH, "base_url", other.url)
    await ask(models)
    assert sent_keys(other) == [None]
    await registry.update_model("qwen", {"top_k": 5})
    await ask(models)
    assert sent_keys(other) == [None, None]


async def test_a_key_of_an_earlier_version_is_bound_to_the_address_it_is_stored_with(
    redis: Redis, models: RegisteredModels, own: ModelServer, other: ModelServer
) -> None:
    registry = ModelRegistry(redis)
    await registry.update_model("qwen", {"base_url": own.url, "api_key": KEY})
    await redis.hdel(HASH, "api_key_origin")
    await ask(models)
    await registry.bind_api_keys()
    await ask(models)
    await redis.hset(HASH, "base_url", other.url)
    await ask(models)
    assert sent_keys(own) == [f"Bearer {KEY}"] * 2
    assert sent_keys(other) == [None]


async def test_changes_at_once_never_join_the_key_of_one_with_the_address_of_the_other(redis: Redis) -> None:
    registry = ModelRegistry(redis)
    for _ in range(10):
        await registry.update_model("qwen", {"base_url": "http://first:1", "api_key": "key-of-first"})
        changes: list[dict[str, Any]] = [
            {"base_url": "http://second:2", "api_key": "key-of-second"},
            {"base_url": "http://third:3"},
            {"base_url": "http://fourth:4", "api_key": "key-of-fourth"},
        ]
        await asyncio.gather(*(registry.update_model("qwen", change) for change in changes))
        config = await registry.get_existing_model("qwen")
        owners = {"http://second:2": "second", "http://third:3": "", "http://fourth:4": "fourth"}
        assert config.api_key in ("", f"key-of-{owners[config.base_url]}")


async def test_a_key_alone_is_refused_where_the_address_changes_meanwhile(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = await ModelRegistry(redis).update_model("qwen", {"base_url": "http://first:1"})

    def apply_while_another_client_writes(key: str, fields: Any, changes: Any) -> ModelConfig:
        with BlockingRedis.from_url(redis_url) as other:
            other.hset(HASH, "base_url", "http://evil:1")
        return config

    monkeypatch.setattr(registry_module, "_apply_model_changes", apply_while_another_client_writes)
    with pytest.raises(Conflict):
        await ModelRegistry(redis).update_model("qwen", {"api_key": KEY})
    assert (await ModelRegistry(redis).get_existing_model("qwen")).api_key == ""


async def test_a_redirect_is_not_followed(
    redis: Redis, models: RegisteredModels, own: ModelServer, other: ModelServer
) -> None:
    await ModelRegistry(redis).update_model("qwen", {"base_url": own.url, "api_key": KEY})
    for status in (301, 302, 303, 307, 308):
        own.script([Reply(status=status, headers={"Location": f"{other.url}/v1/chat/completions"})])
        with pytest.raises(StageFailed, match="redirects"):
            await ask(models)
    assert sent_keys(other) == []


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254"])
@pytest.mark.parametrize("lookup", [1, 2])
async def test_a_name_that_leads_to_metadata_is_not_called_also_after_it_has_led_elsewhere(
    redis: Redis,
    models: RegisteredModels,
    own: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    lookup: int,
) -> None:
    port = int(own.url.rpartition(":")[2])
    await ModelRegistry(redis).update_model("qwen", {"base_url": f"http://gpu.example:{port}", "api_key": KEY})
    lookups = 0
    loop = asyncio.get_running_loop()
    original = loop.getaddrinfo

    async def look_up(host: Any, port: Any, **options: Any) -> Any:
        nonlocal lookups
        if host not in ("gpu.example", b"gpu.example"):
            return await original(host, port, **options)
        lookups += 1
        found = address if lookups >= lookup else "127.0.0.1"
        family = socket.AF_INET6 if ":" in found else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(loop, "getaddrinfo", look_up, raising=False)
    with pytest.raises(VideoMomentsError):
        await ask(models)
    assert own.requests == []


@pytest.mark.parametrize("address", ["http://169.254.169.254", "http://user:pass@127.0.0.1", "http://127.0.0.1?x="])
async def test_an_address_that_came_into_the_registry_unchecked_is_not_called(
    redis: Redis, models: RegisteredModels, address: str
) -> None:
    await ModelRegistry(redis).update_model("qwen", {"base_url": address, "api_key": KEY})
    with pytest.raises(StageFailed, match="an address that is not called"):
        await ask(models)
