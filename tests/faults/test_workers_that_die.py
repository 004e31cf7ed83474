import asyncio
import os
import signal

import pytest

from app.models.stages import Stage
from tests.faults.crew import Crew
from tests.faults.site import Ended
from tests.faults.stages import hold, let_go

COMPLETED = Ended("completed", None, None)


@pytest.mark.parametrize("stage", Stage)
async def test_a_run_whose_worker_is_killed_is_taken_over_at_its_stage(crew: Crew, stage: Stage) -> None:
    site = await crew.ready()
    hold(site.folder, stage)
    run = await site.start()
    killed = await site.begun(run, stage)
    await crew.kill(killed)
    assert await site.begun(run, stage, times=2) != killed
    let_go(site.folder, stage)
    assert await site.ended(run) == COMPLETED
    assert [begun for begun in site.stages(run) if begun is not stage] == [each for each in Stage if each is not stage]
    assert await site.results(run) == list(Stage)


async def test_a_run_that_kills_its_workers_fails_after_three_tries(crew: Crew) -> None:
    site = await crew.ready()
    hold(site.folder, Stage.TRANSCRIPT)
    run = await site.start()
    for attempt in range(1, 4):
        await crew.kill(await site.begun(run, Stage.TRANSCRIPT, times=attempt))
    assert await site.ended(run) == Ended("failed", "transcript", "The worker died 3 times in stage 'transcript'")
    let_go(site.folder, Stage.TRANSCRIPT)
    assert site.stages(run).count(Stage.TRANSCRIPT) == 3


async def test_a_worker_that_was_frozen_writes_nothing_for_the_run_it_has_lost(crew: Crew) -> None:
    site = await crew.ready()
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
    log = crew.member(frozen).log
    await site.until(lambda: asyncio.to_thread(lambda: "another worker has it" in log.read_text()), "the frozen worker")
    assert await site.results(run) == list(Stage)
