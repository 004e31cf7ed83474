"""Turns, progress and cancellation of computations in a thread."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from app.ai.local.compute_thread import ComputationCancelled, ComputationControl, ComputeThread
from tests.ai.local.waiting import ignore


def work_until_stopped(begun: threading.Event, ended: threading.Event) -> Callable[[ComputationControl], None]:
    def work(control: ComputationControl) -> None:
        begun.set()
        try:
            while True:
                control.check()
                time.sleep(0.001)
        except ComputationCancelled:
            time.sleep(0.05)
            ended.set()
            raise

    return work


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


async def test_a_call_gives_its_result_and_tells_its_progress() -> None:
    reports: list[float] = []

    def work(control: ComputationControl) -> str:
        control.report(0.5)
        control.report(7.0)
        return "done"

    assert await ComputeThread("test").run(work, reports.append) == "done"
    assert reports == [0.5, 1.0]


async def test_an_error_reaches_the_caller() -> None:
    def work(control: ComputationControl) -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await ComputeThread("test").run(work, ignore)


async def test_a_cancelled_call_has_stopped_when_it_ends() -> None:
    begun, ended = threading.Event(), threading.Event()
    call = asyncio.create_task(ComputeThread("test").run(work_until_stopped(begun, ended), ignore))
    await wait_for(begun)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()


async def test_a_call_that_is_cancelled_twice_has_stopped_when_it_ends() -> None:
    begun, ended = threading.Event(), threading.Event()
    call = asyncio.create_task(ComputeThread("test").run(work_until_stopped(begun, ended), ignore))
    await wait_for(begun)
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()


async def test_a_call_that_is_cancelled_while_it_waits_is_never_begun() -> None:
    thread = ComputeThread("test")
    begun, ended, never = threading.Event(), threading.Event(), threading.Event()
    first = asyncio.create_task(thread.run(work_until_stopped(begun, ended), ignore))
    await wait_for(begun)
    second = asyncio.create_task(thread.run(lambda control: never.set(), ignore))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not first.done()
    first.cancel()
    await asyncio.wait([first])
    await thread.run(lambda control: None, ignore)
    assert not never.is_set()


async def test_a_cancelled_call_tells_no_progress() -> None:
    reports: list[float] = []
    begun = threading.Event()

    def work(control: ComputationControl) -> None:
        begun.set()
        while True:
            control.report(0.5)
            time.sleep(0.001)

    call = asyncio.create_task(ComputeThread("test").run(work, reports.append))
    await wait_for(begun)
    call.cancel()
    reports.clear()
    await asyncio.wait([call])
    await asyncio.sleep(0)
    assert reports == []
