"""A stream of requests, the database that they lead to, and intakes that read them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.models.stages import Stage
from app.repositories.requests import RejectedRequest, RejectedRequestRepository
from app.services.intake import REQUEST_GROUP, REQUEST_STREAM, StreamRequestIntake, create_request_consumer_group
from app.storage import open_storage
from app.worker.intake import RequestStreamConsumer
from tests.factories import make_video
from tests.pipeline.contexts import open_database

# What the previous backend has written, byte for byte.
PREVIOUS: Mapping[bytes, bytes] = {
    b"request_id": b"pipeline:demo-talk:1795346931771",
    b"video_id": b"demo-talk",
    b"config": b'{"generation_model": "qwen3_vl_fp8", "refinement_model": "minimax", "generation_temperature": 0.7, '
    b'"refinement_temperature": 0.4, "min_moment_length": 45.0, "max_moment_length": 120.0, "min_moments": 3, '
    b'"max_moments": 12, "refinement_parallel_workers": 2, "include_video_refinement": true, '
    b'"generation_prompt": null, "override_existing_moments": true, "override_existing_refinement": false}',
    b"requested_at": b"1795346931.7718232",
}
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class IntakeSite:
    """One database and one Redis, whose stream of requests is the site's own. What waits gives up after a minute."""

    database_url: str
    redis_url: str
    folder: Path
    notified: list[tuple[str, Stage]] = field(default_factory=list)

    @cached_property
    def settings(self) -> Settings:
        return Settings(database_url=self.database_url, redis_url=self.redis_url, data_dir=self.folder / "data")

    async def prepare(self, *videos: str) -> None:
        async with self.redis() as redis:
            await redis.flushdb()
            await create_request_consumer_group(redis)
        async with self.connect() as conn:
            for video in videos:
                await make_video(conn, identifier=video)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        async with open_async_connection(self.settings) as conn:
            yield conn

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        async with Redis.from_url(self.redis_url) as redis:
            yield redis

    async def add(self, fields: Mapping[Any, Any], entry_id: str = "*") -> str:
        """Do what another program does, and return the id of the entry."""
        async with self.redis() as redis:
            added: Any = await redis.xadd(REQUEST_STREAM, dict(fields), id=entry_id)
            return str(added.decode())

    async def notify(self, identifier: str, stage: Stage) -> None:
        self.notified.append((identifier, stage))

    @asynccontextmanager
    async def requests(self) -> AsyncIterator[StreamRequestIntake]:
        """Give what decides over entries, without a stream."""
        storage = open_storage(self.settings)
        async with Redis.from_url(self.redis_url, decode_responses=True) as redis:
            yield StreamRequestIntake(self.settings, open_database(self.settings), redis, storage, self.notify)
        await storage.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[RequestStreamConsumer]:
        """Run an intake, and cancel it at the end."""
        storage = open_storage(self.settings)
        async with Redis.from_url(self.redis_url, decode_responses=True) as redis:
            intake = RequestStreamConsumer(self.settings, open_database(self.settings), redis, storage, self.notify)
            running = asyncio.create_task(intake.consume_until_cancelled())
            try:
                yield intake
            finally:
                assert not running.done(), running
                running.cancel()
                await asyncio.wait({running}, timeout=_PATIENCE_SECONDS)
                assert running.cancelled()
                await storage.aclose()

    async def runs(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the identifier, the video and the request of each run."""
        async with self.connect() as conn:
            cursor = await conn.execute(
                """
                SELECT history.identifier, videos.identifier, request
                FROM pipeline_history AS history JOIN pipeline.runs ON run_id = history.id
                JOIN videos ON videos.id = history.video_id ORDER BY history.id
                """
            )
            return [(run, video, request) for run, video, request in await cursor.fetchall()]

    async def rejected(self) -> list[RejectedRequest]:
        """Return what was rejected, in the order of time."""
        async with self.connect() as conn:
            return (await RejectedRequestRepository(conn).list_newest_rejected_requests(1000))[::-1]

    async def until_settled(self) -> None:
        """Wait until everything in the stream was read and acknowledged."""

        async def is_settled() -> bool:
            async with self.redis() as redis:
                groups = await redis.xinfo_groups(REQUEST_STREAM)
                (group,) = groups
                newest: Any = await redis.xrevrange(REQUEST_STREAM, count=1)
            assert group["name"] == REQUEST_GROUP.encode()
            is_read = not newest or group["last-delivered-id"] == newest[0][0]
            return bool(group["pending"] == 0 and is_read)

        await self.until(is_settled, "every entry to be acknowledged")

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.02
        while not await condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.2)
