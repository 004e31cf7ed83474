"""Periodic tasks: taskiq's scheduler over a broker in this process, which needs no Redis."""

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
from app.pipeline.failures import convert_to_outage

_log = logging.getLogger(__name__)

_CLOCK_SECONDS = 1.0
_CLOCK_STEP_SECONDS = 2.0


class PeriodicTasks:
    """Calls functions at intervals, each one at most once at a time, also after errors; an outage is logged once."""

    def __init__(self) -> None:
        self._broker = InMemoryBroker(await_inplace=True)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()
        self._scheduler: asyncio.Task[None] | None = None

    def add_task(self, name: str, interval_seconds: float, function: Callable[[], Awaitable[object]]) -> None:
        """Add a function to be called within a second of the start, and then at the interval: whole seconds, min. 1."""

        async def call_unless_running() -> None:
            if name not in self._running:
                task = self._running[name] = asyncio.create_task(self._call_and_log_errors(name, function))
                task.add_done_callback(lambda _: self._running.pop(name))
                await asyncio.wait({task})

        interval = max(1, round(interval_seconds))
        self._broker.register_task(call_unless_running, task_name=name, schedule=[{"interval": interval}])

    def start_scheduler(self) -> None:
        self._scheduler = asyncio.create_task(self._run_scheduler())

    async def cancel_all_tasks(self, timeout_seconds: float) -> None:
        if self._scheduler is not None:
            self._scheduler.cancel()
            with suppress(asyncio.CancelledError):
                await self._scheduler
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=timeout_seconds)
        await self._broker.shutdown()

    async def _run_scheduler(self) -> None:
        """Run taskiq's scheduler, and restart it when the system clock was set: its waits depend on that clock."""
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

    async def _call_and_log_errors(self, name: str, function: Callable[[], Awaitable[object]]) -> None:
        try:
            await function()
        except (psycopg.Error, VideoMomentsError) as error:
            if name not in self._failing:
                _log.warning("The worker waits: %s", convert_to_outage(error) or error)
            self._failing.add(name)
        except Exception:
            _log.exception("The worker goes on after an error")
        else:
            self._failing.discard(name)
