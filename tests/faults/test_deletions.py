"""A video that is deleted while a run over it waits or is under way."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from app.models.stages import RunType, Stage
from tests.faults.site import Ended, Site
from tests.faults.stages import hold, hold_saved, let_go, let_go_saved

COMPLETED = Ended("completed", None, None)


@pytest.fixture(scope="module")
async def served(shared_site: Site) -> AsyncIterator[Site]:
    """A site with a worker that executes one stage at a time."""
    async with shared_site.worker(pipeline_concurrency=1):
        yield shared_site


async def check_that_the_worker_goes_on(site: Site) -> None:
    assert await site.ended(await site.start(RunType.AUDIO)) == COMPLETED

    async def is_tidy() -> bool:
        return not await asyncio.to_thread(os.listdir, site.folder / "data" / "work")

    await site.until(is_tidy, "the folders of the runs to go")


@pytest.mark.parametrize("stage", Stage)
async def test_a_stage_whose_video_is_deleted_while_it_works_saves_nothing(served: Site, stage: Stage) -> None:
    hold(served.folder, stage)
    run = await served.start()
    await served.begun(run, stage)
    await served.delete_video(run)
    let_go(served.folder, stage)
    await check_that_the_worker_goes_on(served)
    assert await served.results(run) == list(Stage)[: list(Stage).index(stage)]


@pytest.mark.parametrize("stage", Stage)
async def test_no_stage_follows_one_whose_video_was_deleted_after_it_had_saved(served: Site, stage: Stage) -> None:
    hold_saved(served.folder, stage)
    run = await served.start()
    await served.saved(run, stage)
    await served.delete_video(run)
    let_go_saved(served.folder, stage)
    await check_that_the_worker_goes_on(served)
    assert served.stages(run) == list(Stage)[: list(Stage).index(stage) + 1]


async def test_a_run_whose_video_is_deleted_before_a_worker_claims_it_is_not_begun(served: Site) -> None:
    run = await served.accept()
    stage = await served.stage(run)
    await served.delete_video(run)
    await served.send(run, stage)
    await check_that_the_worker_goes_on(served)
    assert served.stages(run) == []
