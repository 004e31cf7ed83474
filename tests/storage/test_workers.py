import asyncio
import gc
import threading
from typing import Any

import pytest

from app.storage.workers import Workers


async def test_a_call_that_is_told_twice_to_end_is_waited_for_and_its_failure_is_nobodys() -> None:
    workers, told, ended = Workers("test", 1), threading.Event(), threading.Event()
    unseen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unseen.append(context))

    def work() -> None:
        told.wait(10)
        ended.set()
        raise ValueError("The server is stopping")

    try:
        waiting = asyncio.create_task(workers.run_to_its_end(work))
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
