"""The one Redis client of the process."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,
)

from app.core.config import Settings

_client: Redis | None = None

# A server that does not answer within these many seconds counts as away.
_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_AWAY = (ConnectionError, TimeoutError, ReadOnlyError, OutOfMemoryError, ClusterDownError)


def init_redis(settings: Settings) -> None:
    """Make the client. It connects at its first command, and again after the server was away."""
    global _client
    _client = Redis.from_url(
        settings.redis_url.get_secret_value(),
        decode_responses=True,
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 1),
    )


def get_redis() -> Redis:
    """Return the client of the running application."""
    if _client is None:
        raise RuntimeError("init_redis() has not been called")
    return _client


async def close_redis() -> None:
    """Close the client's connections."""
    global _client
    client, _client = _client, None
    if client is not None:
        await client.aclose()


def is_away(error: Exception) -> bool:
    """Tell whether an error means that the server cannot answer now, and not that it was asked something wrong."""
    return isinstance(error, _AWAY)
