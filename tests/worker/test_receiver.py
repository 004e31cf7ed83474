"""How a receiver ends."""

import asyncio
import logging
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from app.core.config import Settings
from app.models.stages import Stage, WorkKind
from app.services.queue import CONSUMER_GROUP
from app.worker.receiver import StageMessageReceiver

_KIND = WorkKind.AUDIO


@pytest.mark.asyncio(loop_scope="function")  # the session's loop may have tasks of other tests
@pytest.mark.parametrize("losses", [0, 1, 100])
async def test_a_receiver_ends_also_where_its_read_loses_a_cancellation(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, losses: int
) -> None:
    caplog.set_level(logging.INFO, "app")
    read_response = AbstractConnection.read_response

    async def lose_cancellation(connection: AbstractConnection, *args: Any, **options: Any) -> Any:
        nonlocal losses
        while True:
            try:
                return await read_response(connection, *args, **options | {"disconnect_on_error": False})
            except asyncio.CancelledError:
                if not losses:
                    await connection.disconnect(nowait=True)
                    raise
                losses -= 1

    monkeypatch.setattr(AbstractConnection, "read_response", lose_cancellation)
    receiver = StageMessageReceiver(Settings(redis_url=redis_url), [_KIND], "worker", _take)
    before = asyncio.all_tasks()
    async with asyncio.timeout(20), Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushdb()
        receiver.start_receiving(1)
        while not await _list_consumers(redis):  # noqa: ASYNC110  nothing notifies
            await asyncio.sleep(0.01)
        await receiver.stop_receiving()
        assert asyncio.all_tasks() == before
        assert await _list_consumers(redis) == []
    assert caplog.messages == []


async def _take(identifier: str, stage: Stage) -> bool:
    return True


async def _list_consumers(redis: Redis) -> list[dict[str, Any]]:
    """Return those that read; a consumer is made with its first read."""
    try:
        consumers: list[dict[str, Any]] = await redis.xinfo_consumers(_KIND.stream_name, CONSUMER_GROUP)
    except ResponseError:  # no group yet
        return []
    return consumers
