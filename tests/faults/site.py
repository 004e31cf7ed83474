"""A site for tests of faults: a database, a Redis, a folder, runs, and workers in this process and others."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from app.core.config import Settings
from app.database import Connection, open_async_connection
from app.models.runs import RunRequest
from app.models.stages import RunType, Stage
from app.repositories.stage_queue import StageQueueRepository
from app.services.queue import StageNotifier, enqueue_run
from app.storage import open_storage
from app.worker.timings import WorkerTimings
from app.worker.worker import Worker
from tests.factories import make_video
from tests.faults.stages import RESULTS, STEADY, make_stages, read_journal
from tests.pipeline.contexts import NoModels, open_database
from tests.programs import Program

# Long, for machines that do much else: only what fails waits for so long.
_PATIENCE_SECONDS = 120.0
# A look takes as much of a processor as a stage of the tests.
_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.02, 0.2
_numbers = count(1)


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: str
    error_stage: str | None
    error_message: str | None


COMPLETED = Ended("completed", None, None)


@dataclass(frozen=True)
class Site:
    """One database, one Redis and one folder. What waits gives up after two minutes."""

    database_url: str
    redis_url: str
    folder: Path

    async def prepare(self) -> None:
        async with self.connect() as conn, self.redis() as redis:
            await conn.execute(RESULTS)
            await redis.flushdb()

    @cached_property
    def settings(self) -> Settings:
        return Settings(**self.values)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        async with open_async_connection(self.settings) as conn:
            yield conn

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        async with Redis.from_url(self.redis_url, decode_responses=True) as redis:
            yield redis

    async def accept(self, run_type: RunType = RunType.FULL) -> str:
        """Accept a run over a new video, and send no message."""
        return (await self.accept_many(1, run_type))[0]

    async def accept_many(self, number: int, run_type: RunType = RunType.FULL) -> list[str]:
        """Accept so many runs, each over a new video, and send no message."""
        async with self.connect() as conn, conn.transaction():
            names = [f"talk-{os.getpid()}-{next(_numbers)}" for _ in range(number)]
            videos = [await make_video(conn, identifier=name) for name in names]
            return [await enqueue_run(conn, video.identifier, run_type, RunRequest()) for video in videos]

    async def start(self, run_type: RunType = RunType.FULL) -> str:
        """Accept a run over a new video and send its message."""
        run = await self.accept(run_type)
        await self.notify(run)
        return run

    async def notify(self, *runs: str) -> None:
        """Send the message of each run's stage, as the server does for the first one."""
        await self._send_all([(run, await self.stage(run)) for run in runs])

    async def send(self, run: str, stage: Stage) -> None:
        """Send a message that a run waits at a stage."""
        await self._send_all([(run, stage)])

    async def _send_all(self, messages: Sequence[tuple[str, Stage]]) -> None:
        notifier = StageNotifier(self.settings)
        for run, stage in messages:
            await notifier.notify(run, stage)
        await notifier.aclose()

    async def delete_video(self, run: str) -> None:
        async with self.connect() as conn:
            await conn.execute(
                "DELETE FROM videos USING pipeline_history AS history WHERE history.identifier = %s"
                " AND videos.id = history.video_id",
                (run,),
            )

    async def cancel(self, run: str) -> None:
        async with self.connect() as conn, conn.transaction():
            cursor = await conn.execute("SELECT id FROM pipeline_history WHERE identifier = %s", (run,))
            row = await cursor.fetchone()
            assert row
            await StageQueueRepository(conn).request_cancel(row[0], STEADY.stalled_after)

    async def begun(self, run: str, stage: Stage, times: int = 1) -> int:
        """Wait until the stage was begun so many times, and return the process that began it last."""
        await self.until(lambda: _true(len(self._beginnings(run, stage)) >= times), f"{stage} of {run}")
        return self._beginnings(run, stage)[-1]

    async def saved(self, run: str, stage: Stage) -> None:
        """Wait until the stage has saved its result."""

        async def is_saved() -> bool:
            return stage in await self.results(run)

        await self.until(is_saved, f"the result of {stage} of {run}")

    async def ended(self, run: str) -> Ended:
        found: list[Ended] = []

        async def look() -> bool:
            async with self.connect() as conn:
                cursor = await conn.execute(
                    "SELECT status, error_stage, error_message FROM pipeline_history WHERE identifier = %s", (run,)
                )
                row = await cursor.fetchone()
            assert row
            found[:] = [Ended(*row)]
            return found[0].status != "running"

        await self.until(look, f"the end of {run}")
        return found[0]

    async def records(self, run: str) -> dict[str, dict[str, Any]]:
        """Return what is stored of each stage."""
        stages: dict[str, dict[str, Any]] = (await self._work(run))[0]
        return stages

    async def attempts(self, run: str) -> int:
        return int((await self._work(run))[1])

    async def results(self, run: str) -> list[str]:
        async with self.connect() as conn:
            cursor = await conn.execute("SELECT stage FROM results WHERE run = %s ORDER BY id", (run,))
            return [stage for (stage,) in await cursor.fetchall()]

    async def consumers(self) -> set[str]:
        """Return the names of the consumers of every group of every stream."""
        async with self.redis() as redis:
            streams = [stream async for stream in redis.scan_iter(_type="stream")]
            groups = [(stream, group["name"]) for stream in streams for group in await redis.xinfo_groups(stream)]
            found = [await redis.xinfo_consumers(stream, group) for stream, group in groups]
        return {consumer["name"] for consumers in found for consumer in consumers}

    def stages(self, run: str) -> list[Stage]:
        """Return the stages in the order they were begun."""
        return [stage for stage, _ in read_journal(self.folder, run)]

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline, pause = time.monotonic() + _PATIENCE_SECONDS, _POLL_SECONDS
        while not await condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{self._logs()}"
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    def spawn(self, **settings: Any) -> "WorkerProcess":
        """Start a worker in another process and return at once."""
        return WorkerProcess(self.folder, self.values | settings)

    async def miss(self, pid: int) -> None:
        """Make what a worker was seen at last long ago, so that its runs are taken over."""
        async with self.connect() as conn:
            await conn.execute(
                "UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE owner LIKE %s",
                (f"%-{pid}-%",),
            )

    @asynccontextmanager
    async def worker(self, *, timings: WorkerTimings = STEADY, **settings: Any) -> AsyncIterator[Worker]:
        """Run a worker in this process."""
        chosen = Settings(**self.values | settings)
        storage, database = open_storage(chosen), open_database(chosen)
        stages = make_stages(self.folder)
        async with self.redis() as redis:
            worker = Worker(chosen, database, redis, storage, NoModels(), stages=stages, timings=timings)
            await worker.start()
            try:
                yield worker
            finally:
                await worker.stop()
                await storage.aclose()

    async def stage(self, run: str) -> Stage:
        """Return the stage that a run is at; the first one of a run that is not there."""
        async with self.connect() as conn:
            cursor = await conn.execute(
                "SELECT stage FROM pipeline.runs JOIN pipeline_history ON id = run_id WHERE identifier = %s", (run,)
            )
            row = await cursor.fetchone()
        return Stage(row[0]) if row else Stage.DOWNLOAD

    async def _work(self, run: str) -> tuple[Any, ...]:
        async with self.connect() as conn:
            cursor = await conn.execute(
                """
                SELECT stages, attempt FROM pipeline.runs JOIN pipeline_history ON id = run_id WHERE identifier = %s
                """,
                (run,),
            )
            row = await cursor.fetchone()
        assert row
        return row

    @property
    def values(self) -> dict[str, Any]:
        """The settings of a worker."""
        return {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "data_dir": self.folder / "data",
            "database_pool_size": 2,
        }

    def _beginnings(self, run: str, stage: Stage) -> list[int]:
        return [pid for begun, pid in read_journal(self.folder, run) if begun is stage]

    def _logs(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("worker-*.log"))


class WorkerProcess(Program):
    """A worker in a process of its own."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self.log = folder / f"worker-{next(_numbers)}.log"
        super().__init__("tests.faults.worker_process", str(folder), folder=folder, log=self.log, settings=settings)

    async def ready(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (self._folder / f"{self.pid}.ready").exists():
            assert self.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            await asyncio.sleep(_POLL_SECONDS)

    async def left(self) -> int:
        """Wait until it has ended by itself, and return its status."""
        return await asyncio.to_thread(self.wait, 60)


async def _true(value: bool) -> bool:
    return value


class WorkerPair:
    """`ready` waits until both are at work."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._workers: dict[int, WorkerProcess] = {}
        self._fill()

    async def ready(self) -> Site:
        self._fill()
        for worker in self._workers.values():
            await worker.ready()
        return self.site

    def member(self, pid: int) -> WorkerProcess:
        return self._workers[pid]

    async def kill(self, pid: int) -> None:
        """Kill one; another one comes in its place, but not at once."""
        self._workers[pid].kill()
        await self.site.miss(pid)
        self._fill()

    def dismiss(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    def _fill(self) -> None:
        self._workers = {pid: worker for pid, worker in self._workers.items() if worker.poll() is None}
        while len(self._workers) < 2:
            worker = self.site.spawn(pipeline_concurrency=10)
            self._workers[worker.pid] = worker
