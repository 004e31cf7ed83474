"""Periodic work: taskiq's scheduler over a broker in this process, so that it goes on without Redis."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
from taskiq import InMemoryBroker, TaskiqScheduler
from taskiq.api import run_scheduler_task
from taskiq.schedule_sources import LabelScheduleSource

from app.core.errors import VideoMomentsError
from app.pipeline.outages import find_outage

_log = logging.getLogger(__name__)


class PeriodicTasks:
    """Functions that are called again and again between `start` and `stop`, none of them twice at a time.

    An error ends no function's calls; an outage of PostgreSQL is logged once.
    """

    def __init__(self) -> None:
        self._broker = InMemoryBroker(await_inplace=True)
        self._running: set[asyncio.Task[None]] = set()
        self._failing: set[str] = set()
        self._scheduler: asyncio.Task[None] | None = None

    def add(self, name: str, interval: float, function: Callable[[], Awaitable[None]]) -> None:
        """Call a function within a second, and then every `interval` seconds: whole ones, at least one."""

        async def call() -> None:
            task = asyncio.create_task(self._call(name, function))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.wait({task})

        self._broker.register_task(call, task_name=name, schedule=[{"interval": max(1, round(interval))}])

    def start(self) -> None:
        scheduler = TaskiqScheduler(self._broker, [LabelScheduleSource(self._broker)])
        self._scheduler = asyncio.create_task(run_scheduler_task(scheduler))

    async def stop(self, grace: float) -> None:
        """Cancel what runs, and wait for its end, but no longer than `grace` seconds."""
        if self._scheduler is not None:
            self._scheduler.cancel()
            with suppress(asyncio.CancelledError):
                await self._scheduler
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        await self._broker.shutdown()

    async def _call(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except (psycopg.Error, VideoMomentsError) as error:
            if name not in self._failing:
                _log.warning("The worker waits: %s", find_outage(error) or error)
            self._failing.add(name)
        except Exception:
            _log.exception("The worker goes on after an error")
        else:
            self._failing.discard(name)
