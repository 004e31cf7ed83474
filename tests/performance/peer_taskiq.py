"""The floor: taskiq's stock broker on a stream in Redis. Nothing is durable, and nothing decides who does a task.

Its worker is taskiq's own command, with `make_queue_broker` as the factory.
"""

import os
import time

from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

DELAYS_KEY = "peer:delays"  # seconds between acceptance and start, as the worker appends them
NOTE_START = "note_start"


def make_queue_broker(url: str = "") -> RedisStreamBroker:
    url = url or os.environ["REDIS_URL"]
    broker = RedisStreamBroker(url, queue_name="peer:taskiq")
    redis = Redis.from_url(url)

    async def note_start(accepted_at: float) -> None:
        delay = time.time() - accepted_at
        await redis.rpush(DELAYS_KEY, delay)

    broker.register_task(note_start, task_name=NOTE_START)
    return broker
