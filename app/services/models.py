"""AI models of the registry, for checks that must not wait for Redis."""

import asyncio
import logging

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.ai.registry import DEFAULT_MODELS, ModelConfig, ModelKind, ModelRegistry
from app.core.errors import InvalidInput, ModelNotConfigured
from app.core.redis import describe_redis_error, translate_redis_error

_log = logging.getLogger(__name__)
# The client waits for the answer, and the registry for nothing.
_REDIS_TIMEOUT = 1.0


async def get_transcription_model(redis: Redis, model_key: str) -> ModelConfig:
    """Return the config of a model. Raises `ModelNotConfigured`, and `InvalidInput` for one that cannot transcribe."""
    config = await get_model_or_default(redis, model_key)
    if config.kind in (ModelKind.CHAT, ModelKind.EMBEDDING):
        raise InvalidInput(f"Model '{model_key}' cannot transcribe")
    return config


async def get_moment_model(redis: Redis, model_key: str) -> ModelConfig:
    """Return the config of a model. Raises `ModelNotConfigured`, and `InvalidInput` for one that finds no moments."""
    config = await get_model_or_default(redis, model_key)
    if config.kind in (ModelKind.TRANSCRIPTION, ModelKind.PARAKEET):
        raise InvalidInput(f"Model '{model_key}' can only transcribe")
    if config.kind is ModelKind.EMBEDDING:
        raise InvalidInput(f"Model '{model_key}' can only embed texts")
    return config


async def register_api_keys_to_mask(redis: Redis) -> None:
    try:
        async with asyncio.timeout(_REDIS_TIMEOUT):
            await ModelRegistry(redis).list_models()
    except (RedisError, OSError) as error:
        _log.debug("Cannot read the API keys of models: %s", describe_redis_error(error))


async def get_model_or_default(redis: Redis, model_key: str) -> ModelConfig:
    """Return the config of a model from the registry, or from its defaults while Redis is unavailable."""
    registry = ModelRegistry(redis)
    try:
        async with asyncio.timeout(_REDIS_TIMEOUT):
            config = await registry.get_model(model_key)
            if config is None:
                raise ModelNotConfigured(model_key, await registry.list_models())
    except (RedisError, OSError) as error:
        _log.debug("Could not read model %s from Redis: %s", model_key, describe_redis_error(error))
        config = DEFAULT_MODELS.get(model_key)
        if config is None:
            raise translate_redis_error(error) or error from None
    return config
