import asyncio
import time

import psycopg
import pytest

from app.worker.periodic import PeriodicTasks


class Counted:
    """A function that counts its calls, and waits within each where it is held."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.released = asyncio.Event()
        self.released.set()
        self._error = error

    async def __call__(self) -> None:
        self.calls += 1
        if self._error is not None:
            raise self._error
        await self.released.wait()

    async def until(self, calls: int) -> None:
        async with asyncio.timeout(30):
            while self.calls < calls:  # noqa: ASYNC110  it is a counter
                await asyncio.sleep(0.02)


async def test_a_function_is_called_again_and_again_until_the_end() -> None:
    periodic, function = PeriodicTasks(), Counted()
    periodic.add_task("count", 1.0, function)
    periodic.start_scheduler()
    await function.until(2)
    await periodic.cancel_all_tasks(5)
    calls = function.calls
    await asyncio.sleep(1.5)
    assert function.calls == calls


async def test_a_call_that_takes_long_is_not_joined_by_another_and_ends_with_the_worker() -> None:
    periodic, function = PeriodicTasks(), Counted()
    function.released.clear()
    periodic.add_task("count", 1.0, function)
    periodic.start_scheduler()
    await function.until(1)
    await asyncio.sleep(2.5)
    assert function.calls == 1
    async with asyncio.timeout(60):
        await periodic.cancel_all_tasks(300)


async def test_a_clock_that_is_set_back_does_not_stop_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    periodic, function = PeriodicTasks(), Counted()
    periodic.add_task("count", 3600.0, function)
    periodic.start_scheduler()
    await function.until(1)
    real = time.time
    monkeypatch.setattr("app.worker.periodic.time.time", lambda: real() - 3600)
    await function.until(2)
    await periodic.cancel_all_tasks(5)


@pytest.mark.parametrize("error", [psycopg.OperationalError("away"), ValueError("defect")])
async def test_an_error_ends_no_calls(error: Exception) -> None:
    periodic, function, other = PeriodicTasks(), Counted(error), Counted()
    periodic.add_task("failing", 1.0, function)
    periodic.add_task("count", 1.0, other)
    periodic.start_scheduler()
    await function.until(2)
    await other.until(2)
    await periodic.cancel_all_tasks(5)
