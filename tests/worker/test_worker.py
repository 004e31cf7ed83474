"""A worker: what it serves, how many it lets work at once, and how short the way to a stage is."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import CoroutineType
from typing import Any

from taskiq.receiver import Receiver

from app.core.config import Settings
from app.models.stages import STAGE_TABLE, RunType, Stage, WorkKind
from app.pipeline.context import LoadedStage, RunContext
from app.repositories.stage_queue import StageQueueRepository
from app.storage import open_storage
from app.worker.execution import StageExecution
from app.worker.worker import Worker
from tests.faults.site import Ended, Site
from tests.faults.stages import STEADY, make_stages
from tests.pipeline.contexts import NoModels, open_database

COMPLETED = Ended("completed", None, None)


@asynccontextmanager
async def work(
    site: Site, codes: Mapping[Stage, LoadedStage], *kinds: WorkKind, **settings: Any
) -> AsyncIterator[None]:
    """Run a worker for some kinds of work, for all where none is named."""
    chosen = Settings(**site.values | settings)
    storage = open_storage(chosen)
    async with site.redis() as redis:
        worker = Worker(
            chosen, open_database(chosen), redis, storage, NoModels(), kinds or tuple(WorkKind), codes, STEADY
        )
        await worker.start()
        try:
            yield
        finally:
            await worker.stop()
            await storage.aclose()


async def prepare(database_url: str, redis_url: str, folder: Path) -> Site:
    site = Site(database_url, redis_url, folder)
    await site.prepare()
    return site


async def test_a_worker_takes_the_stages_of_its_kinds_and_no_others(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    site = await prepare(own_database_url, redis_url, tmp_path)
    codes = make_stages(tmp_path)
    run = await site.start()
    async with work(site, codes, WorkKind.DOWNLOAD, WorkKind.AUDIO):
        await site.until(lambda: is_at(site, run, Stage.TRANSCRIPT), "the run to wait for a transcription")
        await asyncio.sleep(1.5)  # longer than a worker takes to look for stages that wait
        assert await is_at(site, run, Stage.TRANSCRIPT)
        assert (await site.records(run))["transcript"]["status"] == "waiting"
        async with work(site, codes, WorkKind.TRANSCRIPTION, WorkKind.GENERATION):
            await site.until(lambda: is_at(site, run, Stage.CLIPS), "the run to wait for its clips")
    others = set(WorkKind) - {WorkKind.DOWNLOAD, WorkKind.AUDIO, WorkKind.TRANSCRIPTION, WorkKind.GENERATION}
    async with work(site, codes, *others):
        assert await site.ended(run) == COMPLETED
    assert site.stages(run) == await site.results(run) == list(Stage)


async def is_at(site: Site, run: str, stage: Stage) -> bool:
    async with site.connect() as conn:
        cursor = await conn.execute(
            "SELECT stage = %s AND owner IS NULL FROM pipeline.runs JOIN pipeline_history ON id = run_id"
            " WHERE identifier = %s",
            (stage.value, run),
        )
        row = await cursor.fetchone()
    return bool(row and row[0])


async def test_a_limit_holds_over_all_workers_and_those_that_wait_are_not_forgotten(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    site = await prepare(own_database_url, redis_url, tmp_path)
    at_once, most, are_two = 0, 0, asyncio.Event()

    async def count(context: RunContext) -> Mapping[str, Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 2:
            are_two.set()
        await are_two.wait()
        await asyncio.sleep(0.05)
        at_once -= 1
        return {}

    codes = dict(make_stages(tmp_path))
    definition = replace(codes[Stage.TRANSCRIPT].definition, limit_setting="limit_transcription")
    codes[Stage.TRANSCRIPT] = LoadedStage(definition, codes[Stage.TRANSCRIPT].skip_reason, count)
    settings: dict[str, Any] = {"pipeline_concurrency": 10, "limit_transcription": 2}
    async with work(site, codes, **settings), work(site, codes, **settings):
        runs = [await site.accept(RunType.TRANSCRIPT) for _ in range(12)]
        await site.notify(*runs)
        for run in runs:
            assert await site.ended(run) == COMPLETED
    assert most == 2


async def test_a_limit_leaves_out_the_stage_of_a_worker_that_has_died(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    site = await prepare(own_database_url, redis_url, tmp_path)
    codes = dict(make_stages(tmp_path))
    definition = replace(codes[Stage.TRANSCRIPT].definition, limit_setting="limit_transcription")
    codes[Stage.TRANSCRIPT] = replace(codes[Stage.TRANSCRIPT], definition=definition)
    dying, waiting = [await site.accept(RunType.TRANSCRIPT) for _ in range(2)]
    async with site.connect() as conn:
        assert await StageQueueRepository(conn).claim_stage(dying, Stage.TRANSCRIPT, "vm-1-dead", 60, 1)
    async with work(site, codes, limit_transcription=1):
        await site.notify(waiting)
        await site.until(lambda: is_at_limit(site, waiting), "the run to wait for room at its stage")
        await asyncio.sleep(1.5)  # longer than a worker takes to look for stages that wait
        assert await site.results(waiting) == []
        await site.miss(1)
        for run in (dying, waiting):
            assert await site.ended(run) == COMPLETED
            assert await site.results(run) == [Stage.TRANSCRIPT]


async def is_at_limit(site: Site, run: str) -> bool:
    return (await site.records(run)).get("transcript", {}).get("status") == "waiting"


async def test_six_frames_lie_between_the_receiver_and_a_stage(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A frame is counted where it is on the stack, or waits for one that is; the last is the stage's function."""
    site = await prepare(own_database_url, redis_url, tmp_path)
    frames: list[str] = []

    async def look(context: RunContext) -> Mapping[str, Any]:
        waiting = [_chain(task) for task in asyncio.all_tasks()]
        outer = next(chain for chain in waiting if _EXECUTE in chain)
        inner = [frame.function for frame in inspect.stack()]
        frames[:] = [
            *outer[outer.index(_RECEIVER) + 1 : outer.index(_EXECUTE) + 1],
            *reversed(inner[: inner.index("_run_or_skip_stage") + 1]),
        ]
        return {}

    codes = dict(make_stages(tmp_path))
    codes[Stage.TRANSCRIPT] = replace(codes[Stage.TRANSCRIPT], run_stage=look)
    async with work(site, codes):
        assert await site.ended(await site.start(RunType.TRANSCRIPT)) == COMPLETED
    assert len(frames) == 6, frames


_EXECUTE = StageExecution.execute.__qualname__
_RECEIVER = Receiver.run_task.__qualname__


def _chain(task: asyncio.Task[Any]) -> list[str]:
    """Return the names of the coroutines of a task, each waiting for the next one."""
    names: list[str] = []
    coroutine: Any = task.get_coro()
    while isinstance(coroutine, CoroutineType):
        names.append(coroutine.__qualname__)
        coroutine = coroutine.cr_await
    return names


def test_each_stage_has_a_kind_whose_stream_is_its_own() -> None:
    assert len({kind.stream_name for kind in WorkKind}) == len(WorkKind)
    assert {row.kind for row in STAGE_TABLE.values()} == set(WorkKind)
