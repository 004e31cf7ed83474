"""Workers that are killed, frozen, ended, or behind a pooler."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from app.models.stages import Stage
from tests.faults.site import COMPLETED, Ended, Site, WorkerPair
from tests.faults.stages import hold, let_go
from tests.pgbouncer import needs_pgbouncer, run_pgbouncer


@pytest.mark.parametrize("stage", Stage)
async def test_a_run_whose_worker_is_killed_is_taken_over_at_its_stage(worker_pair: WorkerPair, stage: Stage) -> None:
    site = await worker_pair.ready()
    hold(site.folder, stage)
    run = await site.start()
    killed = await site.begun(run, stage)
    await worker_pair.kill(killed)
    assert await site.begun(run, stage, times=2) != killed
    let_go(site.folder, stage)
    assert await site.ended(run) == COMPLETED
    assert [begun for begun in site.stages(run) if begun is not stage] == [each for each in Stage if each is not stage]
    assert await site.results(run) == list(Stage)


async def test_a_run_that_kills_its_workers_fails_after_three_tries(worker_pair: WorkerPair) -> None:
    site = await worker_pair.ready()
    hold(site.folder, Stage.TRANSCRIPT)
    run = await site.start()
    for attempt in range(1, 4):
        await worker_pair.kill(await site.begun(run, Stage.TRANSCRIPT, times=attempt))
    assert await site.ended(run) == Ended("failed", "transcript", "The worker died 3 times in stage 'transcript'")
    let_go(site.folder, Stage.TRANSCRIPT)
    assert site.stages(run).count(Stage.TRANSCRIPT) == 3


async def test_a_worker_that_was_frozen_writes_nothing_for_the_run_it_has_lost(worker_pair: WorkerPair) -> None:
    site = await worker_pair.ready()
    hold(site.folder, Stage.GENERATION)
    run = await site.start()
    frozen = await site.begun(run, Stage.GENERATION)
    os.kill(frozen, signal.SIGSTOP)
    try:
        await site.miss(frozen)
        assert await site.begun(run, Stage.GENERATION, times=2) != frozen
        let_go(site.folder, Stage.GENERATION)
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert await site.ended(run) == COMPLETED
    log = worker_pair.member(frozen).log
    await site.until(lambda: asyncio.to_thread(lambda: "another worker has it" in log.read_text()), "the frozen worker")
    assert await site.results(run) == list(Stage)


async def test_a_worker_that_gets_sigterm_releases_its_run(worker_pair: WorkerPair) -> None:
    site = await worker_pair.ready()
    hold(site.folder, Stage.CLIPS)
    run = await site.start()
    ended = await site.begun(run, Stage.CLIPS)
    worker_pair.member(ended).terminate()
    assert await worker_pair.member(ended).left() == 0
    assert await site.begun(run, Stage.CLIPS, times=2) != ended
    let_go(site.folder, Stage.CLIPS)
    assert await site.ended(run) == COMPLETED
    assert await site.results(run) == list(Stage)
    assert await site.attempts(run) == 1


async def test_two_workers_do_each_of_twenty_runs_once(worker_pair: WorkerPair) -> None:
    site = await worker_pair.ready()
    runs = [await site.accept() for _ in range(20)]
    await site.notify(*runs, *runs)  # and each gets two messages
    for run in runs:
        assert await site.ended(run) == COMPLETED
        assert await site.results(run) == list(Stage)
        assert site.stages(run) == list(Stage)


async def test_a_worker_does_not_claim_its_own_stages_after_its_machine_has_slept(site: Site) -> None:
    hold(site.folder, Stage.AUDIO)
    async with site.worker():
        run = await site.start()
        await site.begun(run, Stage.AUDIO)
        for _ in range(5):
            await site.miss(os.getpid())
            await site.notify(run)
            await asyncio.sleep(0.3)
        assert await site.attempts(run) == 1
        let_go(site.folder, Stage.AUDIO)
        assert await site.ended(run) == COMPLETED
    assert site.stages(run) == list(Stage)


@needs_pgbouncer
async def test_two_workers_behind_a_pooler_that_shares_sessions_do_each_of_twenty_runs_once(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with run_pgbouncer(own_database_url, pool_size=4, pool_mode="transaction") as pooler:
        site = Site(pooler.url(own_database_url), redis_url, tmp_path)
        await site.prepare()
        workers = [site.spawn(pipeline_concurrency=10) for _ in range(2)]
        try:
            runs = await site.accept_many(20)
            await site.notify(*runs, *runs)
            for run in runs:
                assert await site.ended(run) == COMPLETED
                assert site.stages(run) == await site.results(run) == list(Stage)
                assert await site.attempts(run) == 1
            assert not [worker for worker in workers if "Traceback" in worker.log.read_text()]
        finally:
            for worker in workers:
                worker.kill()
