import asyncio
import gc
import threading
from functools import partial
from typing import Any

import pytest

from app.core.thread_pool import ThreadPool, observe_slots
from tests.core.test_turns import Observer


async def test_a_call_that_is_told_twice_to_end_is_waited_for_and_its_failure_is_nobodys() -> None:
    workers, begun, told, ended = ThreadPool("test", 1), threading.Event(), threading.Event(), threading.Event()
    unseen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unseen.append(context))

    def work() -> None:
        begun.set()
        told.wait(60)
        ended.set()
        raise ValueError("The server is stopping")

    try:
        waiting = asyncio.create_task(workers.run_shielded(work))
        await asyncio.to_thread(begun.wait, 60)
        for _ in range(2):
            await asyncio.sleep(0.01)
            waiting.cancel()
        await asyncio.sleep(0.01)
        told.set()
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
    workers, told, observer = ThreadPool("test", 2), threading.Event(), Observer()
    try:
        busy = [asyncio.create_task(workers.run_in_slot(partial(told.wait, 10))) for _ in range(2)]
        await asyncio.sleep(0)
        with observe_slots(observer):
            waiting = asyncio.create_task(workers.run_in_slot(lambda: "done"))
        await asyncio.sleep(0.01)
        assert observer.seen == ["wait"]
        told.set()
        assert await waiting == "done"
        assert observer.seen == ["wait", "work", "leave"]
        assert await asyncio.gather(*busy) == [True, True]
    finally:
        workers.close()
