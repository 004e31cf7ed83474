"""An intake in a process of its own, which is killed before it acknowledges its fifth entry."""

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from tests.intakes import IntakeSite

_KILLED_AT = 5


async def main(database_url: str, redis_url: str, folder: str) -> None:
    async with IntakeSite(database_url, redis_url, Path(folder)).reading() as intake:
        acknowledge, numbers = intake._redis.xack, count(1)

        async def acknowledge_or_die(*args: Any) -> Any:
            if next(numbers) == _KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            return await acknowledge(*args)

        setattr(intake._redis, "xack", acknowledge_or_die)  # noqa: B010  mypy takes no assignment
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
