import asyncio
import logging
import socket

import pytest
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.doorbell import RUN_STREAM, WORKER_GROUP, Doorbell, close_doorbell, init_doorbell, ring


async def test_whoever_listens_hears_of_what_was_rung_before(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
    settings = Settings(redis_url=redis_url)
    init_doorbell(settings)
    await ring("pipeline:talk:1")
    await close_doorbell()
    doorbell = Doorbell(settings)
    entries = doorbell.listen()
    async with asyncio.timeout(30):
        entry = await anext(entries)
    assert b"pipeline:talk:1" in entry.data
    await entry.ack()  # type: ignore[misc]
    async with Redis.from_url(redis_url) as redis:
        assert (await redis.xpending(RUN_STREAM, WORKER_GROUP))["pending"] == 0
    await entries.aclose()
    await doorbell.shutdown()


async def test_who_is_told_to_stop_listening_stops(redis_url: str) -> None:
    doorbell = Doorbell(Settings(redis_url=redis_url))

    async def listen() -> None:
        async for _ in doorbell.listen():
            pass

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    doorbell.stop_listening()
    async with asyncio.timeout(30):
        await listening
    await doorbell.shutdown()


async def test_ringing_never_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            init_doorbell(Settings(redis_url=f"redis://127.0.0.1:{port}/0"))
            async with asyncio.timeout(30):
                await ring("pipeline:talk:1")
            await close_doorbell()
    await ring("pipeline:talk:1")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert caplog.messages[1].endswith("it waits until one looks: no answer in time")


async def test_who_rings_knows_whether_that_was_heard(redis_url: str) -> None:
    for url, is_heard in ((redis_url, True), ("redis://127.0.0.1:1/0", False)):
        doorbell = Doorbell(Settings(redis_url=url))
        assert await doorbell.ring("pipeline:talk:1") is is_heard
        await doorbell.shutdown()
