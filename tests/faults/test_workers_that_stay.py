import asyncio
import os

from app.models.stages import Stage
from tests.faults.crew import Crew
from tests.faults.site import Ended, Site
from tests.faults.stages import hold, let_go

COMPLETED = Ended("completed", None, None)


async def test_a_worker_that_gets_sigterm_releases_its_run(crew: Crew) -> None:
    site = await crew.ready()
    hold(site.folder, Stage.CLIPS)
    run = await site.start()
    ended = await site.begun(run, Stage.CLIPS)
    crew.member(ended).process.terminate()
    assert await crew.member(ended).left() == 0
    assert await site.begun(run, Stage.CLIPS, times=2) != ended
    let_go(site.folder, Stage.CLIPS)
    assert await site.ended(run) == COMPLETED
    assert await site.results(run) == list(Stage)
    assert await site.attempts(run) == 1


async def test_two_workers_do_each_of_twenty_runs_once(crew: Crew) -> None:
    site = await crew.ready()
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
