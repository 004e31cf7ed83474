"""Clients of Redis, and what its errors mean."""

import re
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import DataError, LockError, PubSubError, RedisError, ResponseError, WatchError

from app.core.config import Settings
from app.core.errors import RedisUnavailable

# A server that does not answer within these many seconds counts as away.
_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0

# What the server answered, by the first word of its error: what is wrong, and what would be right.
# https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
_OF_A_CLUSTER = "REDIS_URL names a node of a Redis cluster: a single server is needed"
_REFUSALS: Mapping[str, str] = {
    "ASK": _OF_A_CLUSTER,
    "BUSY": "Redis is busy with a script, try again",
    "CLUSTERDOWN": "The Redis cluster is down, try again",
    "CROSSSLOT": _OF_A_CLUSTER,
    "LOADING": "Redis is loading its data, try again",
    "MASTERDOWN": "Redis is a replica without its primary: REDIS_URL must name the primary",
    "MISCONF": "Redis takes no changes because it cannot save its data: look at its disk and its log",
    "MOVED": _OF_A_CLUSTER,
    "NOAUTH": "Redis asks for a password: set it in REDIS_URL",
    "NOPERM": "Redis does not allow this: grant the user of REDIS_URL all keys, channels and commands",
    "NOREPLICAS": "Redis takes no changes because it has too few replicas",
    "OOM": "Redis has no memory left for changes: raise its maxmemory",
    "READONLY": "Redis is a replica, which takes no changes: REDIS_URL must name the primary",
    "TRYAGAIN": _OF_A_CLUSTER,
    "WRONGPASS": "Redis refuses the user or the password of REDIS_URL",
    "WRONGTYPE": "Redis holds values of another program under the same keys: name a free database in REDIS_URL",
}
_NO_SUCH_DATABASE = "Redis has no database of the number in REDIS_URL: use a smaller one"
_OTHER_REFUSAL = "Redis refuses a command of this server: the log has its reason"
# redis-py's own complaints about how it is called.
_DEFECTS = (DataError, LockError, PubSubError, WatchError)


def make_redis(settings: Settings, *, answers_text: bool = True) -> Redis:
    """Return a client that answers with text, else with bytes. It connects at its first command."""
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        health_check_interval=30,
        decode_responses=answers_text,
        encoding_errors="replace" if answers_text else "strict",
        **make_redis_connection_options(),
    )


def make_redis_connection_options() -> dict[str, Any]:
    return {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        "retry": Retry(NoBackoff(), 1),
    }


def translate_redis_error(error: Exception) -> RedisUnavailable | None:
    """Return an error whose sentence says what is wrong with Redis; None for a defect of this code."""
    if not isinstance(error, RedisError | OSError) or isinstance(error, _DEFECTS):
        return None
    word, reason = _split_redis_error(error)
    if "DB index" in reason:
        return RedisUnavailable(_NO_SUCH_DATABASE)
    if word in _REFUSALS:
        return RedisUnavailable(_REFUSALS[word])
    return RedisUnavailable(_OTHER_REFUSAL) if isinstance(error, ResponseError) else RedisUnavailable()


def describe_redis_error(error: Exception) -> str:
    """Return the server's own words, for the log: without the command, which may hold an API key."""
    return " ".join(_split_redis_error(error)).strip() or "no answer in time"


def _split_redis_error(error: Exception) -> tuple[str, str]:
    """Return the first word of what the server answered, and the rest: `("MISCONF", "Redis is configured to …")`."""
    text = str(error)
    if in_pipeline := re.search(r" of pipeline caused error: \((['\"])(.*)\1,\)$", text, re.DOTALL):
        text = in_pipeline[2]
    if code := getattr(error, "status_code", None):  # redis-py has cut the word off
        return str(code), text
    word, _, rest = text.partition(" ")
    return (word, rest) if re.fullmatch("[A-Z]+", word) else ("", text)
