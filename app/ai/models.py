"""The models of the registry, opened by key as transcribers and moment finders."""

import logging
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError
from tenacity import stop_before_delay, wait_exponential

from app.ai.chat import ChatMomentFinder
from app.ai.completions import ChatClient, ProviderOptions
from app.ai.embeddings import OpenAIEmbedder
from app.ai.local.embeddings import LocalEmbedder
from app.ai.local.finder import LocalMomentFinder
from app.ai.local.whisper import WhisperTranscriber
from app.ai.protocols import Embedder, MomentFinder, Transcriber
from app.ai.registry import LOCAL_MODEL_KEY, ModelConfig, ModelKind, ModelRegistry
from app.ai.service import ModelServiceClient, open_http_client
from app.ai.transcription import OpenAITranscriber, ParakeetTranscriber
from app.core.config import Settings
from app.core.errors import ModelNotConfigured, ModelUnsuitable, TransientFailure
from app.core.redis import describe_redis_error, translate_redis_error
from app.core.retrying import FailedCall, RetryPolicy, call_with_retries
from app.core.thread_pool import report_idle_time

_log = logging.getLogger(__name__)

# Ten minutes, as for PostgreSQL; not counted against the time limit of a stage.
_REGISTRY_POLICY = RetryPolicy(
    lambda error: isinstance(error, RedisError) and translate_redis_error(error) is not None,
    wait_exponential(multiplier=0.5, max=5.0),
    stop_before_delay(600.0),
)
_FINDER_KINDS = (ModelKind.CHAT, ModelKind.LOCAL)
_EMBEDDER_KINDS = (ModelKind.EMBEDDING, ModelKind.LOCAL)
_TRANSCRIBER_KINDS = (ModelKind.TRANSCRIPTION, ModelKind.PARAKEET, ModelKind.LOCAL)


class RegisteredModels:
    """Opens models by key. The registry is read for each call, so a change holds from the next one on."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._registry = ModelRegistry(redis)
        self._local_transcriber = WhisperTranscriber(settings.local_whisper)
        self._local_finder = LocalMomentFinder()
        self._local_embedder = LocalEmbedder()
        self._client = open_http_client()
        self._provider_options: dict[str, ProviderOptions] = {}

    async def get_transcriber(self, key: str) -> Transcriber:
        config = await self._read_config_with_retries(key)
        if config.kind not in _TRANSCRIBER_KINDS:
            raise ModelUnsuitable(key, config.kind, "transcribe")
        if config.is_local:
            return self._local_transcriber
        service = ModelServiceClient(self._client, key, config)
        return ParakeetTranscriber(service) if config.kind is ModelKind.PARAKEET else OpenAITranscriber(service)

    async def get_finder(self, key: str) -> MomentFinder:
        config = await self._read_config_with_retries(key)
        if config.kind not in _FINDER_KINDS:
            raise ModelUnsuitable(key, config.kind, "find moments")
        if config.is_local:
            return self._local_finder
        service = ModelServiceClient(self._client, key, config)
        return ChatMomentFinder(key, config, ChatClient(service, self._provider_options))

    async def get_embedder(self, key: str) -> Embedder:
        if key == LOCAL_MODEL_KEY:
            return self._local_embedder  # without Redis
        config = await self._read_config_with_retries(key)
        if config.kind not in _EMBEDDER_KINDS:
            raise ModelUnsuitable(key, config.kind, "embed texts")
        if config.is_local:
            return self._local_embedder
        return OpenAIEmbedder(ModelServiceClient(self._client, key, config))

    async def aclose(self) -> None:
        self._local_embedder.close()
        await self._client.aclose()

    async def _read_config_with_retries(self, key: str) -> ModelConfig:
        """Read a config, and retry while Redis is unavailable, so that a restart of Redis fails no run."""

        def report_retry(failed: FailedCall) -> None:
            if failed.number == 1:
                reason = describe_redis_error(failed.error)
                _log.warning("Cannot read the model '%s' from Redis, retrying: %s", key, reason)
            report_idle_time(failed.wait)

        try:
            return await call_with_retries(partial(self._read_config, key), _REGISTRY_POLICY, before_wait=report_retry)
        except RedisError as error:
            if (reason := translate_redis_error(error)) is None:
                raise
            raise TransientFailure(f"Redis, which holds the models, cannot be read: {reason}") from None

    async def _read_config(self, key: str) -> ModelConfig:
        config = await self._registry.get_model(key)
        if config is None:
            raise ModelNotConfigured(key, await self._registry.list_models())
        return config
