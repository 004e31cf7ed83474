"""Several workers: for different kinds of work, replaced one after the other, and in a long outage of PostgreSQL."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.embedded import EmbeddedPostgres, EmbeddedValkey
from app.models.stages import RunType, Stage, list_stages
from tests.ai.model_server import Reply
from tests.conftest import Databases, migrate
from tests.embedded.servers import QUICK
from tests.faults.separate_workers import (
    MEDIA,
    MODELS,
    SPEECH,
    STAGES_OF,
    TRANSCRIPT,
    SeparateWorkers,
    separate_workers,
)
from tests.faults.site import COMPLETED, Site, WorkerProcess
from tests.faults.stages import hold, hold_saved, let_go, let_go_saved, slow_down
from tests.google_emulator import Emulator
from tests.serving import free_port
from tests.sites import Visit, in_turn

_OUTAGE_SECONDS = 90.0
_WORKERS = 5
_RUNS_PER_RESTART = 40


@dataclass(frozen=True)
class LongOutage:
    """An outage of 90 seconds that began at `since`. `runs` are the runs that had been accepted before it."""

    site: Site
    workers: Sequence[WorkerProcess]
    runs: Mapping[str, RunType]
    postgres: EmbeddedPostgres
    since: float

    async def end(self) -> None:
        await asyncio.sleep(self.since + _OUTAGE_SECONDS - time.monotonic())
        self.postgres.start()
        let_go(self.site.folder, Stage.TRANSCRIPT)


@asynccontextmanager
async def long_outage(folder: Path) -> AsyncIterator[LongOutage]:
    """Stop the servers' PostgreSQL at the beginning of the block; it stays away until `LongOutage.end`.

    Meanwhile a transcript is being made, a generation and a clip stage want to save, and other runs wait.
    """
    with (
        EmbeddedPostgres(folder / "postgres", free_port(), QUICK) as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
    ):
        database_url = Databases(postgres.url).create()
        migrate(database_url)
        site = Site(database_url, valkey.url, folder)
        await site.prepare()
        workers = [site.spawn(pipeline_concurrency=3, database_pool_timeout=1) for _ in range(2)]
        try:
            for worker in workers:
                await worker.ready()  # so that no stage is held, and its time goes, while the other worker starts
            runs = await _begin_runs(site)
            postgres.stop()
            since = time.monotonic()
            let_go(site.folder, Stage.GENERATION)
            let_go_saved(site.folder, Stage.CLIPS)
            yield LongOutage(site, workers, runs, postgres, since)
        finally:
            for worker in workers:
                worker.kill()


async def _begin_runs(site: Site) -> Mapping[str, RunType]:
    """Begin two runs that work, two about to save, two that have saved, and four that wait, two without a message."""
    held = 2 * ((Stage.TRANSCRIPT, RunType.FULL), (Stage.GENERATION, RunType.MOMENTS), (Stage.CLIPS, RunType.CLIPS))
    hold(site.folder, Stage.TRANSCRIPT)
    hold(site.folder, Stage.GENERATION)
    hold_saved(site.folder, Stage.CLIPS)
    runs = {await site.start(run_type): run_type for _, run_type in held}
    for run, (stage, _) in zip(runs, held, strict=True):
        await site.begun(run, stage)
        if stage is Stage.CLIPS:
            await site.saved(run, stage)
    runs |= {await site.start(): RunType.FULL, await site.start(): RunType.FULL}
    return runs | dict.fromkeys(await site.accept_many(2), RunType.FULL)


@pytest.fixture(scope="module", autouse=True)
async def outage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LongOutage]:
    """An outage that lasts while other tests of the module run, and ends in the last one."""
    async with long_outage(tmp_path_factory.mktemp("outage")) as outage:
        yield outage


@pytest.fixture
async def workers(site: Site) -> AsyncIterator[list[WorkerProcess]]:
    """Five workers in processes of their own. What the test adds to them is killed at its end, too."""
    workers = [site.spawn(pipeline_concurrency=2) for _ in range(_WORKERS)]
    try:
        for worker in workers:
            await worker.ready()
        yield workers
    finally:
        for worker in workers:
            worker.kill()


@pytest.fixture
def apart(databases: Databases, template_url: str, tmp_path: Path) -> Iterator[SeparateWorkers]:
    """Workers for different kinds of work whose store is a folder."""
    with separate_workers(tmp_path, databases.create(template_url), (tmp_path / "store").as_uri()) as apart:
        yield apart


def check_each_stage_was_done_once(apart: SeparateWorkers) -> None:
    assert apart.count_completed() == Counter((kinds, stage) for kinds in STAGES_OF for stage in STAGES_OF[kinds])


def test_workers_for_different_kinds_of_work_need_no_files_of_each_other(
    apart: SeparateWorkers, tmp_path: Path
) -> None:
    last = apart.finish_run(apart.start_run())
    assert last["status"] == "completed", last
    check_each_stage_was_done_once(apart)
    assert len(apart.site.visits) == 1
    assert Counter(asked.path.rpartition("/")[2] for asked in apart.models.requests) == {
        "transcriptions": 1,
        "completions": 3,  # one that finds two moments, and two that refine them
    }
    assert Counter(path.parts[-3] for path in (tmp_path / "store").glob("*/*/*")) == {
        "videos": 1,
        "audio": 1,
        "clips": 2,
    }


def test_workers_for_different_kinds_of_work_share_a_bucket(
    bucket: str, emulator: Emulator, databases: Databases, template_url: str, tmp_path: Path
) -> None:
    with separate_workers(tmp_path, databases.create(template_url), f"gs://{bucket}/media") as apart:
        last = apart.finish_run(apart.start_run())
        assert last["status"] == "completed", last
        check_each_stage_was_done_once(apart)
    assert Counter(name.split("/")[1] for name in emulator.names_in(bucket)) == {"videos": 1, "audio": 1, "clips": 2}


def test_a_run_survives_the_death_of_a_worker_of_each_kind(apart: SeparateWorkers) -> None:
    """Each is killed in a stage, and a worker on another machine claims that stage."""
    apart.site.answers["/video.mp4"] = in_turn(Visit.wait_until_gone, apart.site.answers["/video.mp4"])
    apart.models.script([Reply(never=True), Reply(body=TRANSCRIPT), Reply(never=True)])
    video = apart.start_run()
    apart.until(lambda: apart.site.visits, "the download")
    apart.replace(MEDIA)
    apart.until(apart.models.waiting.is_set, "the transcription")
    apart.models.waiting.clear()
    apart.replace(SPEECH)
    apart.until(apart.models.waiting.is_set, "the generation")
    apart.replace(MODELS)
    last = apart.finish_run(video)
    assert last["status"] == "completed", last
    check_each_stage_was_done_once(apart)
    assert len(apart.site.visits) == 2
    assert len(apart.models.requests) == 6  # two that were not answered, and the four of a run that nothing disturbs


async def test_a_rolling_restart_of_five_workers_does_each_stage_of_200_runs_once(
    site: Site, workers: list[WorkerProcess]
) -> None:
    slow_down(site.folder, 0.2)
    runs: list[str] = []
    for leaving in tuple(workers):
        new = await site.accept_many(_RUNS_PER_RESTART)
        await site.notify(*new)
        runs += new
        await site.begun(new[0], Stage.DOWNLOAD)
        leaving.terminate()
        workers.append(site.spawn(pipeline_concurrency=2))
        assert await leaving.left() == 0
        await workers[-1].ready()
    for run in runs:
        assert await site.ended(run) == COMPLETED
        assert await site.attempts(run) == 1
        assert site.stages(run) == await site.results(run) == list(Stage)
    consumers = await site.consumers()
    assert not [name for name in consumers for left in workers[:_WORKERS] if f"-{left.pid}-" in name]
    assert all(any(f"-{worker.pid}-" in name for name in consumers) for worker in workers[_WORKERS:])
    for worker in workers[_WORKERS:]:
        worker.terminate()
        assert await worker.left() == 0
    assert await site.consumers() == set()
    assert not [worker for worker in workers if "Traceback" in worker.log.read_text()]


async def test_a_database_that_is_away_for_90_seconds_costs_no_run_an_attempt(outage: LongOutage) -> None:
    await outage.end()
    for run, run_type in outage.runs.items():
        assert await outage.site.ended(run) == COMPLETED
        assert await outage.site.attempts(run) == 1
        assert await outage.site.results(run) == list(list_stages(run_type))
    for worker in outage.workers:
        assert worker.poll() is None
        assert "Traceback" not in worker.log.read_text()
