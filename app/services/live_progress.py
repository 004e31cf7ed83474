"""How far workers are with runs, asked for by clients that will soon ask again."""

import asyncio
import logging

from redis.asyncio import Redis

from app.models.stages import Stage
from app.repositories.live_fields import read_progress
from app.repositories.live_runs import LiveRuns

_PATIENCE_SECONDS = 0.5


async def find_progress(redis: Redis, run: str, video: str, stage: Stage) -> dict[str, int] | None:
    """Return the counters that the run's worker has told of a stage; None also where Redis does not answer at once."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return read_progress(await LiveRuns(redis, level=logging.DEBUG).find(run, video), stage)
    except TimeoutError:
        return None
