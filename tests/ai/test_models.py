"""The models that a run names: who answers for an entry of the registry."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.ai.models import RegisteredModels
from app.ai.protocols import FindRequest, Segment
from app.ai.registry import ModelConfig, ModelKind, ModelRegistry
from app.core.config import Settings
from app.core.errors import ModelNotConfigured, ModelUnsuitable, TransientFailure
from app.embedded import EmbeddedValkey
from tests.ai.audio_files import make_audio
from tests.ai.model_server import ModelServer
from tests.retries import remove_waits
from tests.serving import free_port

REQUEST = FindRequest([Segment("Hello.", 0.0, 60.0)], (), 60.0, 5.0, 60.0, 1, 3)


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


def nothing(done: float) -> None:
    pass


@pytest.mark.parametrize("key", ["minimax", "qwen", "qwen3_omni", "qwen3_vl_fp8", "local"])
async def test_without_an_address_this_machine_finds_moments_and_says_so(models: RegisteredModels, key: str) -> None:
    finder = await models.get_finder(key)
    assert finder.model == (await models.get_finder("local")).model
    assert finder.model not in {"MiniMax", "Qwen3-VL", "Qwen3-Omini", "Qwen3-VL-FP8"}


@pytest.mark.parametrize("key", ["parakeet", "local"])
async def test_without_an_address_this_machine_transcribes_and_says_so(models: RegisteredModels, key: str) -> None:
    assert "whisper" in (await models.get_transcriber(key)).service


async def test_with_an_address_the_service_answers_from_the_next_call_on(
    models: RegisteredModels, redis: Redis, server: ModelServer
) -> None:
    server.answer('[{"start_time": 5, "end_time": 30, "title": "One"}]')
    await ModelRegistry(redis).update_model("qwen", {"base_url": server.url})
    finder = await models.get_finder("qwen")
    assert (finder.model, dict(finder.parameters)) == ("Qwen3-VL", {"top_p": None, "top_k": None})
    assert (await finder.find(REQUEST, nothing)).model == "test-model"
    assert server.requests[0].body["model"] == "qwen3-vl-235b-thinking"


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        (ModelKind.TRANSCRIPTION, "/v1/audio/transcriptions", {"text": ""}),
        (ModelKind.PARAKEET, "/transcribe", {"transcription": ""}),
    ],
)
async def test_the_kind_of_an_entry_says_how_its_server_is_asked(
    models: RegisteredModels, redis: Redis, server: ModelServer, tmp_path: Path, kind: ModelKind, path: str, body: Any
) -> None:
    server.transcript(body)
    await ModelRegistry(redis).put_model("ears", ModelConfig("Ears", server.url, kind=kind))
    transcriber = await models.get_transcriber("ears")
    await transcriber.transcribe(make_audio(tmp_path / "a.wav", link="https://media.example/a.wav"), nothing)
    assert server.requests[0].path == path


async def test_a_refused_schema_is_remembered_for_all_runs(
    models: RegisteredModels, redis: Redis, server: ModelServer
) -> None:
    server.refuses_schema = True
    await ModelRegistry(redis).update_model("qwen", {"base_url": server.url})
    for _ in range(2):
        await (await models.get_finder("qwen")).find(REQUEST, nothing)
    assert ["response_format" in request.body for request in server.requests] == [True, False, False]


async def test_an_unknown_model_is_reported_with_those_there_are(models: RegisteredModels) -> None:
    for get in (models.get_finder, models.get_transcriber):
        with pytest.raises(ModelNotConfigured, match="'zzz' is not configured; there are: local, minimax"):
            await get("zzz")


async def test_a_model_that_does_something_else_is_reported_as_such(models: RegisteredModels) -> None:
    with pytest.raises(ModelUnsuitable, match="'parakeet' is of the kind parakeet and cannot find moments"):
        await models.get_finder("parakeet")
    with pytest.raises(ModelUnsuitable, match="'qwen' is of the kind chat and cannot transcribe"):
        await models.get_transcriber("qwen")


async def test_a_registry_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey", free_port()) as valkey:
        async with Redis.from_url(valkey.url, decode_responses=True) as redis, asyncio.timeout(60):
            models = RegisteredModels(Settings(), redis)
            valkey.stop()
            finding = asyncio.create_task(models.get_finder("qwen"))
            await asyncio.wait({finding}, timeout=0.2)
            assert not finding.done()
            valkey.start()
            assert (await finding).model
            await models.aclose()


async def test_who_waits_for_a_registry_can_be_stopped() -> None:
    async with Redis.from_url("redis://127.0.0.1:1/0", retry=None) as away:
        models = RegisteredModels(Settings(), away)
        finding = asyncio.create_task(models.get_finder("qwen"))
        await asyncio.wait({finding}, timeout=0.1)
        finding.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await finding
        await models.aclose()


async def test_a_registry_that_stays_away_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    remove_waits(monkeypatch, "app.ai.models._REGISTRY_POLICY", calls=2)
    async with Redis.from_url("redis://127.0.0.1:1/0", retry=None) as away:
        models = RegisteredModels(Settings(), away)
        with pytest.raises(TransientFailure):
            await models.get_finder("qwen")
        await models.aclose()
