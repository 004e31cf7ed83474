"""Periodic work: taskiq's scheduler over a broker in this process, so that it goes on without Redis."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
from taskiq import InMemoryBroker, TaskiqScheduler
from taskiq.api import run_scheduler_task
from taskiq.schedule_sources import LabelScheduleSource

from app.core.errors import VideoMomentsError
from app.pipeline.failures import find_outage

_log = logging.getLogger(__name__)

_CLOCK_SECONDS = 1.0
_CLOCK_STEP_SECONDS = 2.0


class PeriodicTasks:
    """Functions that are called again and again between `start` and `stop`, none of them twice at a time.

    An error ends no function's calls; an outage of PostgreSQL is logged once.
    """

    def __init__(self) -> None:
        self._broker = InMemoryBroker(await_inplace=True)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()
        self._scheduler: asyncio.Task[None] | None = None

    def add(self, name: str, interval: float, function: Callable[[], Awaitable[None]]) -> None:
        """Call a function within a second, and then every `interval` seconds: whole ones, at least one."""

        async def call() -> None:
            if name not in self._running:
                task = self._running[name] = asyncio.create_task(self._call(name, function))
                task.add_done_callback(lambda _: self._running.pop(name))
                await asyncio.wait({task})

        self._broker.register_task(call, task_name=name, schedule=[{"interval": max(1, round(interval))}])

    def start(self) -> None:
        self._scheduler = asyncio.create_task(self._schedule())

    async def stop(self, grace: float) -> None:
        """Cancel what runs, and wait for its end, but no longer than `grace` seconds."""
        if self._scheduler is not None:
            self._scheduler.cancel()
            with suppress(asyncio.CancelledError):
                await self._scheduler
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=grace)
        await self._broker.shutdown()

    async def _schedule(self) -> None:
        """Run the scheduler, and again where the machine's clock was set: it waits for times by that clock."""
        loop = asyncio.get_running_loop()
        while True:
            scheduler = TaskiqScheduler(self._broker, [LabelScheduleSource(self._broker)])
            offset, running = time.time() - loop.time(), asyncio.create_task(run_scheduler_task(scheduler))
            try:
                while abs(time.time() - loop.time() - offset) < _CLOCK_STEP_SECONDS:  # noqa: ASYNC110  nothing notifies
                    await asyncio.sleep(_CLOCK_SECONDS)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

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
