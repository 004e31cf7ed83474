"""A run's places at resources that only so many runs may use at once, over all workers."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from app.core.config import Settings
from app.pipeline.pace import Pace
from app.repositories.live_runs import LiveRuns

_POLL_SECONDS = (0.2, 0.6)


class Slots:
    """The places of one run in the hands of one worker, who `token` stands for."""

    def __init__(self, live: LiveRuns, settings: Settings, token: str, pace: Pace) -> None:
        self._live = live
        self._token = token
        self._seconds = pace.lease
        self._held: set[str] = set()
        self._settings = settings

    @asynccontextmanager
    async def hold(self, limit_setting: str | None, on_wait: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Wait for a place and keep it for the block. None needs no place. `on_wait` is called where there is none."""
        if limit_setting is None:
            yield
            return
        resource = limit_setting.removeprefix("limit_")
        try:
            await self._wait_for(resource, getattr(self._settings, limit_setting), on_wait)
            self._held.add(resource)
            yield
        finally:
            self._held.discard(resource)
            await self._live.free_slot(resource, self._token)

    async def _wait_for(self, resource: str, limit: int, on_wait: Callable[[], Awaitable[None]]) -> None:
        is_told = False
        while not await self._live.take_slot(resource, self._token, limit, self._seconds):
            if not is_told:
                await on_wait()
                is_told = True
            await asyncio.sleep(random.uniform(*_POLL_SECONDS))  # noqa: S311  nobody gains by guessing it

    async def renew(self) -> None:
        """Keep what is held; whoever does not do so within the lease of the pace gives way."""
        for resource in tuple(self._held):
            await self._live.keep_slot(resource, self._token, self._seconds)
