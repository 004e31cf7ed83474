"""The AI models that a run can use: Redis hashes `model:config:{key}`, their keys in the set `model:config:_keys`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

_PREFIX = "model:config:"
_KEYS = "model:config:_keys"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Where a model is served and how it is called."""

    name: str
    base_url: str
    model_id: str | None = None
    supports_video: bool = False
    top_p: float | None = None
    top_k: int | None = None
    updated_at: str | None = None  # ISO 8601, UTC without a zone


# The models of the previous backend, at the local ends of the tunnels through which it reached them.
DEFAULT_MODELS: Mapping[str, ModelConfig] = {
    "minimax": ModelConfig("MiniMax", "http://localhost:8007"),
    "qwen": ModelConfig("Qwen3-VL", "http://localhost:6101", model_id="qwen3-vl-235b-thinking"),
    "qwen3_omni": ModelConfig("Qwen3-Omini", "http://localhost:7101", top_p=0.95, top_k=20),
    "qwen3_vl_fp8": ModelConfig("Qwen3-VL-FP8", "http://localhost:6010", supports_video=True),
    "parakeet": ModelConfig("Parakeet", "http://localhost:6106"),
}


class ModelRegistry:
    """Model configs by key."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def seed(self) -> int:
        """Write the defaults where there is no model at all; return how many were written."""
        if await self._redis.scard(_KEYS):
            return 0
        for key, config in DEFAULT_MODELS.items():
            await self.put(key, config)
        return len(DEFAULT_MODELS)

    async def list_models(self) -> dict[str, ModelConfig]:
        """Return all configs, sorted by key."""
        keys = sorted(map(str, await self._redis.smembers(_KEYS)))
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(_PREFIX + key)
            hashes = await pipeline.execute()
        return {key: _parse(fields) for key, fields in zip(keys, hashes, strict=True) if fields}

    async def get(self, key: str) -> ModelConfig | None:
        fields = await self._redis.hgetall(_PREFIX + key)
        return _parse(fields) if fields else None

    async def put(self, key: str, config: ModelConfig) -> ModelConfig:
        """Create or replace a config; return it with its new `updated_at`."""
        stamped = ModelConfig(**asdict(config) | {"updated_at": datetime.now(UTC).replace(tzinfo=None).isoformat()})
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(_PREFIX + key, mapping={name: _write(value) for name, value in asdict(stamped).items()})
            pipeline.sadd(_KEYS, key)
            await pipeline.execute()
        return stamped

    async def delete(self, key: str) -> bool:
        """Delete a config; False where there is none."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(_PREFIX + key)
            pipeline.srem(_KEYS, key)
            deleted, _ = await pipeline.execute()
        return bool(deleted)


def _parse(fields: Mapping[Any, Any]) -> ModelConfig:
    """Read the hash's texts; an empty one is null."""
    top_p, top_k = fields.get("top_p"), fields.get("top_k")
    return ModelConfig(
        name=fields["name"],
        base_url=fields.get("base_url", ""),
        model_id=fields.get("model_id") or None,
        supports_video=fields.get("supports_video") == "true",
        top_p=float(top_p) if top_p else None,
        top_k=int(top_k) if top_k else None,
        updated_at=fields.get("updated_at") or None,
    )


def _write(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
