"""The model registry: Redis hashes `model:config:{key}`, and their keys in the set `model:config:_keys`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, NoReturn, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from app.core.addresses import make_service_origin
from app.core.errors import Conflict, InvalidInput, ModelNotFound
from app.core.masking import remember_secret

T = TypeVar("T", int, float)

_HASH_PREFIX = "model:config:"
_KEY_SET = "model:config:_keys"
_KEY_ORIGIN_FIELD = "api_key_origin"  # origin of the address that the key was set for; only that one gets it

RESERVED_MODEL_KEYS = frozenset({"seed", "defaults"})  # used in paths of the API


class ModelKind(StrEnum):
    """The API of a model's server."""

    CHAT = "chat"  # OpenAI's chat completions
    TRANSCRIPTION = "transcription"  # OpenAI's /v1/audio/transcriptions
    PARAKEET = "parakeet"  # POST /transcribe with the URL of an audio file
    EMBEDDING = "embedding"  # OpenAI's /v1/embeddings
    LOCAL = "local"  # this machine


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Address and parameters of a model. Without an address this machine answers."""

    name: str
    base_url: str = ""
    model_id: str | None = None
    supports_video: bool = False
    top_p: float | None = None
    top_k: int | None = None
    kind: ModelKind = ModelKind.CHAT
    api_key: str = field(default="", repr=False)
    updated_at: str | None = None  # ISO 8601, UTC without a zone
    is_key_removed: bool = field(default=False, compare=False)  # set by the write that returns it; never stored

    @property
    def is_local(self) -> bool:
        """Whether the model that is built into this server answers: also for a config without an address."""
        return self.kind is ModelKind.LOCAL or not self.base_url


LOCAL_MODEL_KEY = "local"  # key of the local model; its full name begins with it

DEFAULT_MODELS: Mapping[str, ModelConfig] = {
    "minimax": ModelConfig("MiniMax"),
    "qwen": ModelConfig("Qwen3-VL", model_id="qwen3-vl-235b-thinking"),
    "qwen3_omni": ModelConfig("Qwen3-Omini", top_p=0.95, top_k=20),
    "qwen3_vl_fp8": ModelConfig("Qwen3-VL-FP8", supports_video=True),
    "parakeet": ModelConfig("Parakeet", kind=ModelKind.PARAKEET),
    LOCAL_MODEL_KEY: ModelConfig("This machine", kind=ModelKind.LOCAL),
}

# Defaults of earlier versions, whose hashes have no kind; they were never called.
_FORMER_DEFAULTS: Mapping[str, str] = {
    "minimax": "http://localhost:8007",
    "qwen": "http://localhost:6101",
    "qwen3_omni": "http://localhost:7101",
    "qwen3_vl_fp8": "http://localhost:6010",
    "parakeet": "http://localhost:6106",
}


def is_local_model_name(model: str) -> bool:
    """Return whether a name is that of the model in this server: `local` or `local (…)`."""
    return model == LOCAL_MODEL_KEY or model.startswith(f"{LOCAL_MODEL_KEY} (")


class ModelRegistry:
    """Model configs by key. An empty registry, as after a flush of Redis, is seeded with the defaults on use."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def seed_defaults(self, force: bool = False) -> int:
        """Write the defaults if there is no model, or always with `force`; return the number of models written."""
        count = 0

        async def queue_default_models(pipeline: Pipeline) -> None:
            nonlocal count
            count = len(DEFAULT_MODELS) if force or not await pipeline.scard(_KEY_SET) else 0
            pipeline.multi()  # type: ignore[no-untyped-call]  # redis-py has no type for it
            for key, config in DEFAULT_MODELS.items() if count else ():
                _queue_hash_write(pipeline, key, _with_current_update_time(config))

        await self._redis.transaction(queue_default_models, _KEY_SET)  # retried if a model is added meanwhile
        return count

    async def list_models(self) -> dict[str, ModelConfig]:
        keys = await self._redis.smembers(_KEY_SET)
        if not keys:
            await self.seed_defaults()
            keys = await self._redis.smembers(_KEY_SET)  # another process may have seeded meanwhile
        ordered = sorted(map(str, keys))
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in ordered:
                pipeline.hgetall(_HASH_PREFIX + key)
            hashes = await pipeline.execute()
        return {key: _parse_redis_hash(key, fields) for key, fields in zip(ordered, hashes, strict=True) if fields}

    async def get_model(self, key: str) -> ModelConfig | None:
        fields = await self._redis.hgetall(_HASH_PREFIX + key)
        if not fields:
            await self.seed_defaults()
            fields = await self._redis.hgetall(_HASH_PREFIX + key)
        return _parse_redis_hash(key, fields) if fields else None

    async def bind_api_keys(self) -> None:
        """Bind API keys stored by an earlier version to the address they are stored with."""
        for key in map(str, await self._redis.smembers(_KEY_SET)):
            await self._redis.transaction(partial(_queue_key_binding, key), _HASH_PREFIX + key)

    async def get_existing_model(self, key: str) -> ModelConfig:
        """Return a config. Raises `ModelNotFound`."""
        return await self.get_model(key) or await self._raise_model_not_found(key)

    async def put_model(self, key: str, config: ModelConfig) -> ModelConfig:
        """Create or replace a config with its API key; return it with its `updated_at`."""
        if key in RESERVED_MODEL_KEYS:
            raise InvalidInput(f"A model cannot have the key {key}")
        stored = _with_current_update_time(config)
        await self.seed_defaults()

        async def queue_model(pipeline: Pipeline) -> None:
            nonlocal stored
            had_key = bool(await pipeline.hget(_HASH_PREFIX + key, "api_key"))
            stored = replace(stored, is_key_removed=had_key and not config.api_key)
            pipeline.multi()  # type: ignore[no-untyped-call]  # redis-py has no type for it
            _queue_hash_write(pipeline, key, stored)

        await self._redis.transaction(queue_model, _HASH_PREFIX + key)
        return stored

    async def update_model(self, key: str, changes: Mapping[str, Any]) -> ModelConfig:
        """Change fields of a config without losing changes made at the same time.

        The API key is removed if the address gets another scheme, host or port and `changes` has no key. Raises
        `ModelNotFound`, and `Conflict` for a key whose address was changed at the same time.
        """
        if not changes:
            raise InvalidInput("Name at least one field to change, with a value that is not null")
        await self.seed_defaults()
        changed: ModelConfig | None = None
        origins: set[str] = set()  # of the address, at each attempt

        async def queue_changed_model(pipeline: Pipeline) -> None:
            nonlocal changed
            fields = await pipeline.hgetall(_HASH_PREFIX + key)
            changed = _apply_model_changes(key, fields, changes) if fields else None
            origins.add(make_service_origin(_parse_base_url(key, fields)))
            if len(origins) > 1 and changes.get("api_key") and "base_url" not in changes:
                raise Conflict("The address of the model was changed at the same time: send base_url with the API key")
            pipeline.multi()  # type: ignore[no-untyped-call]  # redis-py has no type for it
            if changed is not None:
                _queue_hash_write(pipeline, key, changed)

        await self._redis.transaction(queue_changed_model, _HASH_PREFIX + key)  # retried if the hash changes meanwhile
        return changed or await self._raise_model_not_found(key)

    async def delete_model(self, key: str) -> None:
        await self.seed_defaults()
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(_HASH_PREFIX + key)
            pipeline.srem(_KEY_SET, key)
            deleted, _ = await pipeline.execute()
        if not deleted:
            await self._raise_model_not_found(key)

    async def _raise_model_not_found(self, key: str) -> NoReturn:
        raise ModelNotFound(key, list(await self.list_models()))


def _apply_model_changes(key: str, fields: Mapping[Any, Any], changes: Mapping[str, Any]) -> ModelConfig:
    """Return a config with changes; its API key is kept only for the origin it was set for."""
    before = _parse_redis_hash(key, fields)
    after = replace(before, **changes)
    is_kept = "api_key" in changes or make_service_origin(after.base_url) == make_service_origin(before.base_url)
    if not is_kept:
        after = replace(after, api_key="")
    is_removed = bool(fields.get("api_key")) and not after.api_key and "api_key" not in changes
    return _with_current_update_time(replace(after, is_key_removed=is_removed))


async def _queue_key_binding(key: str, pipeline: Pipeline) -> None:
    fields = await pipeline.hgetall(_HASH_PREFIX + key)
    pipeline.multi()  # type: ignore[no-untyped-call]  # redis-py has no type for it
    remember_secret(str(fields.get("api_key", "")))
    if fields.get("api_key") and _KEY_ORIGIN_FIELD not in fields:
        pipeline.hset(_HASH_PREFIX + key, _KEY_ORIGIN_FIELD, make_service_origin(_parse_base_url(key, fields)))


def _queue_hash_write(pipeline: Pipeline, key: str, config: ModelConfig) -> None:
    remember_secret(config.api_key)
    values = asdict(config) | {_KEY_ORIGIN_FIELD: make_service_origin(config.base_url) if config.api_key else ""}
    del values["is_key_removed"]
    pipeline.hset(_HASH_PREFIX + key, mapping={name: _to_hash_value(value) for name, value in values.items()})
    pipeline.sadd(_KEY_SET, key)


def _with_current_update_time(config: ModelConfig) -> ModelConfig:
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    return replace(config, model_id=config.model_id or None, updated_at=now)


def _parse_redis_hash(key: str, fields: Mapping[Any, Any]) -> ModelConfig:
    """Parse the strings of a hash; empty or malformed numbers are None."""
    return ModelConfig(
        name=fields.get("name", ""),
        base_url=_parse_base_url(key, fields),
        model_id=fields.get("model_id") or None,
        supports_video=fields.get("supports_video") == "true",
        top_p=_parse_number_or_none(float, fields.get("top_p")),
        top_k=_parse_number_or_none(int, fields.get("top_k")),
        kind=_parse_model_kind(key, fields.get("kind")),
        api_key=_parse_api_key(key, fields),
        updated_at=fields.get("updated_at") or None,
    )


def _parse_base_url(key: str, fields: Mapping[Any, Any]) -> str:
    """Return the address; "" for a former default, which no one has set."""
    address = str(fields.get("base_url", ""))
    return "" if "kind" not in fields and address == _FORMER_DEFAULTS.get(key) else address


def _parse_api_key(key: str, fields: Mapping[Any, Any]) -> str:
    """Return the API key; "" if it was set for another origin."""
    origin = make_service_origin(_parse_base_url(key, fields))
    remember_secret(str(fields.get("api_key", "")))
    return str(fields.get("api_key", "")) if fields.get(_KEY_ORIGIN_FIELD, origin) == origin else ""


def _parse_model_kind(key: str, text: str | None) -> ModelKind:
    """Return the kind; hashes of the previous backend have none."""
    if text in set(ModelKind):
        return ModelKind(text)
    return DEFAULT_MODELS[key].kind if key in DEFAULT_MODELS else ModelKind.CHAT


def _parse_number_or_none(number_type: Callable[[str], T], text: str | None) -> T | None:
    try:
        return number_type(text) if text else None
    except ValueError:
        return None


def _to_hash_value(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
