"""Milliseconds from the acceptance of a run to the start of its first stage, beside two other ways to wake a worker.

- *this project*: a server and a worker as they come. A run is accepted over HTTP, extracts the audio of a short video
  and stores it. The time is that between `pipeline_history.started_at`, taken before the run is written, and the
  `started_at` of its first stage.
- *LISTEN/NOTIFY*: job queues on PostgreSQL alone: see `peer_listen`.
- *taskiq alone*: the floor, a stream in Redis and nothing durable: see `peer_taskiq`.

The peers accept without HTTP and their jobs do nothing. All times are of one clock, and are written by the processes
that accept and start. With an idle queue, each queue gets a job in turn, so that what else the machine does reaches
each of them.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import httpx
import psycopg
from redis.asyncio import Redis
from taskiq import AsyncTaskiqDecoratedTask

from tests.performance.databases import SEED, Databases
from tests.performance.peer_listen import ACCEPT, CREATE, DELAYS
from tests.performance.peer_taskiq import DELAYS_KEY, NOTE_START, make_queue_broker
from tests.performance.servers import OURS, ROOT, Server

LISTEN, TASKIQ = "LISTEN/NOTIFY", "taskiq alone"
IDLE = "first stage, queue idle"
AIM_MS = 20.0  # of the median with an idle queue

_DATABASE = "runs"
_PEER_DATABASE = "jobs"
_CONCURRENCY = 2
_PAUSE_SECONDS = (0.015, 0.045)
_AT_ONCE = 50
_WARM_UP = 5
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10.0
_OURS = """
    SELECT (stages -> 'audio' ->> 'started_at')::float8 - extract(epoch FROM started_at)::float8
    FROM pipeline_history JOIN pipeline.runs ON run_id = id
    WHERE status = 'completed' AND id > %s
    """


@dataclass(frozen=True)
class Delays:
    """Milliseconds between acceptance and start."""

    p50: float
    p95: float
    p99: float


class _Queue(Protocol):
    name: str

    async def accept(self) -> None: ...

    async def take_delays(self, count: int) -> list[float]:
        """Wait until so many jobs have ended since the last call, and return the seconds each has waited."""
        ...


def measure_first_stages(
    databases: Databases, variables: Mapping[str, str], count: int
) -> Iterator[tuple[str, dict[str, Delays]]]:
    """Yield each case with its delays by queue, `count` of each with an idle queue."""
    yield from asyncio.run(_measure(databases, variables, count)).items()


async def _measure(databases: Databases, variables: Mapping[str, str], count: int) -> dict[str, dict[str, Delays]]:
    async with AsyncExitStack() as stack:
        queues = [
            await stack.enter_async_context(_ours(databases, variables)),
            await stack.enter_async_context(_listening(databases)),
            await stack.enter_async_context(_taskiq(variables)),
        ]
        await _accept_in_turn(queues, _WARM_UP)
        idle = await _accept_in_turn(queues, count)
        busy = {queue.name: await _accept_at_once(queue, _AT_ONCE) for queue in queues}
        return {IDLE: idle, f"first stage, {_AT_ONCE} at once": busy}


async def _accept_in_turn(queues: Sequence[_Queue], count: int) -> dict[str, Delays]:
    pauses = random.Random(SEED)  # noqa: S311  pauses, not keys
    for queue in chain.from_iterable([queues] * count):
        await queue.accept()
        await asyncio.sleep(pauses.uniform(*_PAUSE_SECONDS))
    return {queue.name: _summarize(await queue.take_delays(count)) for queue in queues}


async def _accept_at_once(queue: _Queue, count: int) -> Delays:
    await asyncio.gather(*(queue.accept() for _ in range(count)))
    return _summarize(await queue.take_delays(count))


def _summarize(seconds: Sequence[float]) -> Delays:
    delays = sorted(1000 * each for each in seconds)
    return Delays(*(delays[int(len(delays) * share)] for share in (0.5, 0.95, 0.99)))


class _OurRuns:
    name = OURS.name

    def __init__(self, client: httpx.AsyncClient, url: str, videos: Iterator[str]) -> None:
        self._client = client
        self._url = url
        self._videos = videos
        self._seen = 0

    async def accept(self) -> None:
        answer = await self._client.post(f"/api/videos/{next(self._videos)}/process-audio")
        answer.raise_for_status()

    async def take_delays(self, count: int) -> list[float]:
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as conn:
            delays = await _wait_for_rows(conn, _OURS, self._seen, count)
        self._seen += count
        return delays


class _ListenedJobs:
    name = LISTEN

    def __init__(self, conn: psycopg.AsyncConnection[tuple[float]]) -> None:
        self._conn = conn
        self._seen = 0

    async def accept(self) -> None:
        await self._conn.execute(ACCEPT, [time.time()])

    async def take_delays(self, count: int) -> list[float]:
        delays = await _wait_for_rows(self._conn, DELAYS, self._seen, count)
        self._seen += count
        return delays


class _TaskiqTasks:
    name = TASKIQ

    def __init__(self, redis: Redis, task: AsyncTaskiqDecoratedTask[..., Any]) -> None:
        self._redis = redis
        self._task = task

    async def accept(self) -> None:
        await self._task.kiq(time.time())

    async def take_delays(self, count: int) -> list[float]:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return [float((await self._redis.blpop([DELAYS_KEY]))[1]) for _ in range(count)]


async def _wait_for_rows(
    conn: psycopg.AsyncConnection[tuple[float]], statement: str, seen: int, count: int
) -> list[float]:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            rows = await (await conn.execute(statement, [seen])).fetchall()
            if len(rows) >= count:
                return [delay for (delay,) in rows]
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _ours(databases: Databases, variables: Mapping[str, str]) -> AsyncIterator[_OurRuns]:
    databases.fill(_DATABASE)
    url = databases.url(_DATABASE)
    environment = {**variables, "DATABASE_URL": url}
    command = ["-m", "app", "worker", "--concurrency", str(_CONCURRENCY)]
    with Server(OURS, environment) as server, _working(command, environment):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
            yield _OurRuns(client, url, iter(databases.identifiers(_DATABASE)))


@asynccontextmanager
async def _listening(databases: Databases) -> AsyncIterator[_ListenedJobs]:
    databases.create(_PEER_DATABASE)
    url = databases.url(_PEER_DATABASE)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(CREATE)
        with _working(["-m", "tests.performance.peer_listen", str(_CONCURRENCY)], {"DATABASE_URL": url}):
            yield _ListenedJobs(conn)


@asynccontextmanager
async def _taskiq(variables: Mapping[str, str]) -> AsyncIterator[_TaskiqTasks]:
    broker = make_queue_broker(variables["REDIS_URL"])
    factory = f"{make_queue_broker.__module__}:{make_queue_broker.__name__}"
    command = ["-m", "taskiq", "worker", factory, "--workers", "1", "--max-async-tasks", str(_CONCURRENCY)]
    await broker.startup()
    try:
        async with Redis.from_url(variables["REDIS_URL"]) as redis:
            with _working(command, variables):
                yield _TaskiqTasks(redis, broker.local_task_registry[NOTE_START])
    finally:
        await broker.shutdown()


@contextmanager
def _working(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[None]:
    """Keep a worker running for the block. It needs no sign that it is ready: its first jobs are not measured."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
