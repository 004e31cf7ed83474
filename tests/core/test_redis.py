"""What Redis answers and what the project calls it."""

import asyncio
import re
from contextlib import suppress

import pytest
from redis.asyncio import Redis
from redis.exceptions import DataError, RedisError, WatchError

from app.core.config import Settings
from app.core.errors import RedisUnavailable
from app.core.redis import describe_redis_error, make_redis, translate_redis_error

SECRET = "sk-secret"  # noqa: S105  no secret at all


async def error_of(reply: str, *, in_transaction: bool = False) -> RedisError:
    """Return what the application's client raises where a server answers everything with `reply`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while data := await reader.read(4096):
                writer.write(f"-{reply}\r\n".encode() * len(re.findall(rb"^\*", data, re.MULTILINE)))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        settings = Settings(redis_url=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0?protocol=2")
        async with make_redis(settings) as redis:
            with pytest.raises(RedisError) as raised:
                await _write(redis, in_transaction)
    return raised.value


async def _write(redis: Redis, in_transaction: bool) -> None:
    async with redis.pipeline(transaction=in_transaction) as pipeline:
        pipeline.hset("model:config:x", "api_key", SECRET)
        await pipeline.execute()


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable", "cannot save its data"),
        ("NOPERM User guest has no permissions to run the 'hset' command", "grant the user"),
        ("NOAUTH Authentication required.", "asks for a password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refuses the user or the password"),
        ("ERR DB index is out of range", "no database of the number in REDIS_URL"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "values of another program"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "no memory left"),
        ("READONLY You can't write against a read only replica.", "must name the primary"),
        ("LOADING Redis is loading the dataset in memory", "loading its data"),
        ("BUSY Redis is busy running a script.", "busy with a script"),
        ("CLUSTERDOWN The cluster is down", "cluster is down"),
        ("MOVED 3999 127.0.0.1:6381", "a single server is needed"),
        ("MASTERDOWN Link with MASTER is down", "without its primary"),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("ERR max number of clients reached", "not available"),
        ("ERR unknown command 'HSET'", "the log has its reason"),
        ("SOMETHING new", "the log has its reason"),
    ],
)
@pytest.mark.parametrize("in_transaction", [False, True], ids=["alone", "in a transaction"])
async def test_what_redis_refuses_is_one_sentence(reply: str, sentence: str, in_transaction: bool) -> None:
    error = await error_of(reply, in_transaction=in_transaction)
    found = translate_redis_error(error)
    assert isinstance(found, RedisUnavailable)
    assert sentence in str(found)
    assert SECRET not in describe_redis_error(error)
    assert reply.split()[-1] in describe_redis_error(error)


async def test_a_server_of_another_protocol_is_not_available() -> None:
    error = await error_of("x\r\nHTTP/1.1 400 Bad Request")
    assert isinstance(translate_redis_error(error), RedisUnavailable)


@pytest.mark.parametrize("error", [DataError("x"), WatchError("x"), ValueError("x")])
def test_a_defect_of_the_code_has_no_other_name(error: Exception) -> None:
    assert translate_redis_error(error) is None
