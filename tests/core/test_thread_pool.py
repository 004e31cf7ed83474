"""SlotSemaphore, their observers, and thread pools."""

import asyncio
import gc
import threading
from collections.abc import Hashable
from typing import Any

import pytest

from app.core.thread_pool import SlotSemaphore, ThreadPool, observe_slots


class Observer:
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def slot_awaited(self, call: Hashable) -> None:
        self.seen.append("wait")

    async def slot_acquired(self, call: Hashable) -> None:
        self.seen.append("work")

    def slot_released(self, call: Hashable) -> None:
        self.seen.append("leave")

    def add_idle_time(self, seconds: float) -> None:
        pass


async def use(turns: SlotSemaphore, name: str, done: list[str], times: int = 1) -> None:
    for _ in range(times):
        async with turns.hold_slot():
            done.append(name)
            await asyncio.sleep(0)


async def test_calls_take_turns_in_the_order_they_come() -> None:
    turns, done = SlotSemaphore(), list[str]()
    await asyncio.gather(use(turns, "long", done, 4), use(turns, "short", done))
    assert done == ["long", "short", "long", "long", "long"]


async def test_an_observer_is_notified_of_calls_that_wait_and_work() -> None:
    turns, free, busy = SlotSemaphore(), Observer(), Observer()

    async def observed(observer: Observer) -> None:
        with observe_slots(observer):
            await use(turns, "", [])

    await asyncio.gather(observed(free), observed(busy))
    assert free.seen == ["work", "leave"]
    assert busy.seen == ["wait", "work", "leave"]


async def test_turns_may_be_several_at_once() -> None:
    turns, done = SlotSemaphore(2), list[str]()
    async with turns.hold_slot(), turns.hold_slot():
        calls = [asyncio.create_task(use(turns, name, done)) for name in ("first", "second")]
        await asyncio.sleep(0.01)
        assert done == []
    await asyncio.gather(*calls)
    async with turns.hold_slot(), turns.hold_slot():
        assert done == ["first", "second"]


async def test_all_observers_are_notified() -> None:
    turns, outer, inner = SlotSemaphore(), Observer(), Observer()
    with observe_slots(outer):
        with observe_slots(inner):
            await use(turns, "", [])
        await use(turns, "", [])
    assert (outer.seen, inner.seen) == (["work", "leave"] * 2, ["work", "leave"])


async def test_a_cancelled_call_gives_its_turn_to_the_next() -> None:
    turns, done = SlotSemaphore(), list[str]()
    async with turns.hold_slot():
        calls = [asyncio.create_task(use(turns, name, done)) for name in ("first", "second", "third")]
        await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.sleep(0)
    calls[1].cancel()  # in the moment in which it gets its turn
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    await calls[2]
    assert done == ["third"]
    await use(turns, "again", done)


def test_turns_serve_one_event_loop_after_the_other() -> None:
    turns, done = SlotSemaphore(), list[str]()

    async def both() -> None:
        await asyncio.gather(use(turns, "one", done), use(turns, "other", done))

    asyncio.run(both())
    asyncio.run(both())
    assert done == ["one", "other"] * 2


async def test_an_observer_that_fails_costs_no_turn() -> None:
    class Failing(Observer):
        def slot_released(self, call: Hashable) -> None:
            raise RuntimeError("No")

        def add_idle_time(self, seconds: float) -> None:
            pass

    turns = SlotSemaphore()
    with observe_slots(Failing()), pytest.raises(RuntimeError, match="No"):
        async with turns.hold_slot():
            pass
    async with asyncio.timeout(60), turns.hold_slot():
        pass


async def test_a_call_that_is_asked_twice_to_end_is_waited_for_and_its_failure_is_nobodys() -> None:
    workers, begun, reports, ended = ThreadPool("test", 1), threading.Event(), threading.Event(), threading.Event()
    unseen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unseen.append(context))

    def work() -> None:
        begun.set()
        reports.wait(60)
        ended.set()
        raise ValueError("The server is stopping")

    try:
        waiting = asyncio.create_task(workers.run_shielded(work))
        await asyncio.to_thread(begun.wait, 60)
        for _ in range(2):
            await asyncio.sleep(0.01)
            waiting.cancel()
        await asyncio.sleep(0.01)
        reports.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended.is_set()
        gc.collect()
        await asyncio.sleep(0)
        assert unseen == []
    finally:
        loop.set_exception_handler(None)
        workers.close()


async def test_a_call_that_waits_for_a_thread_waits_for_its_turn() -> None:
    workers, reports, observer = ThreadPool("test", 2), threading.Event(), Observer()
    try:
        busy = [asyncio.create_task(workers.run_in_slot(lambda _: reports.wait(10))) for _ in range(2)]
        await asyncio.sleep(0)
        with observe_slots(observer):
            waiting = asyncio.create_task(workers.run_in_slot(lambda _: "done"))
        await asyncio.sleep(0.01)
        assert observer.seen == ["wait"]
        reports.set()
        assert await waiting == "done"
        assert observer.seen == ["wait", "work", "leave"]
        assert await asyncio.gather(*busy) == [True, True]
    finally:
        workers.close()
