import asyncio
import logging
import socket

import pytest
from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

from app.core.config import Settings
from app.models.stages import STAGE_TABLE, Stage, WorkKind
from app.services.queue import CONSUMER_GROUP, StageNotifier, make_queue_broker

_RUN = "pipeline:talk:1"


async def test_a_message_that_was_sent_before_a_worker_listens_is_received(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
    settings = Settings(redis_url=redis_url)
    notifier = StageNotifier(settings)
    assert await notifier.notify(_RUN, Stage.AUDIO_UPLOAD)
    await notifier.aclose()
    broker = make_queue_broker(settings, [WorkKind.TRANSCRIPTION, WorkKind.AUDIO])
    await broker.startup()
    entries = broker.listen()
    async with asyncio.timeout(30):
        entry = await anext(entries)
    assert _RUN.encode() in entry.data
    await entry.ack()  # type: ignore[misc]
    async with Redis.from_url(redis_url) as redis:
        assert (await redis.xpending(WorkKind.AUDIO.stream_name, CONSUMER_GROUP))["pending"] == 0
    await entries.aclose()
    await broker.shutdown()


def test_nothing_of_the_broker_is_overridden(redis_url: str) -> None:
    assert type(make_queue_broker(Settings(redis_url=redis_url))) is RedisStreamBroker


@pytest.mark.parametrize("stage", Stage)
async def test_each_stage_has_the_stream_of_its_kind(redis_url: str, stage: Stage) -> None:
    notifier = StageNotifier(Settings(redis_url=redis_url))
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.flushdb()
        assert await notifier.notify(_RUN, stage)
        (stream,) = await redis.keys("videomoments:*")
    assert stream == f"videomoments:stages:{STAGE_TABLE[stage].kind}"
    await notifier.aclose()


async def test_sending_never_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            notifier = StageNotifier(Settings(redis_url=f"redis://127.0.0.1:{port}/0"))
            async with asyncio.timeout(30):
                assert not await notifier.notify(_RUN, Stage.DOWNLOAD)
            await notifier.aclose()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.messages[1].endswith("it waits until a worker polls: no answer in time")
