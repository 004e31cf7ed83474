"""Runs that are cancelled, and videos that are deleted, before and during each stage."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from app.models.stages import RunType, Stage
from tests.faults.site import COMPLETED, Ended, Site
from tests.faults.stages import hold, hold_saved, let_go, let_go_saved

CANCELLED = Ended("cancelled", None, None)


@pytest.fixture(scope="module")
async def served(shared_site: Site) -> AsyncIterator[Site]:
    """A site with a worker that does one run at a time."""
    async with shared_site.worker(pipeline_concurrency=1):
        yield shared_site


@pytest.mark.parametrize("stage", Stage)
async def test_a_run_that_is_cancelled_in_a_stage_ends_there(served: Site, stage: Stage) -> None:
    hold(served.folder, stage)
    run = await served.start()
    await served.begun(run, stage)
    await served.cancel(run)
    assert await served.ended(run) == CANCELLED
    let_go(served.folder, stage)
    assert served.stages(run) == list(Stage)[: list(Stage).index(stage) + 1]
    assert await served.results(run) == list(Stage)[: list(Stage).index(stage)]
    record = (await served.records(run))[stage]
    assert (record["status"], record["error"]) == ("cancelled", None)


async def test_a_request_to_cancel_needs_no_redis(served: Site) -> None:
    hold(served.folder, Stage.AUDIO)
    run = await served.start()
    await served.begun(run, Stage.AUDIO)
    async with served.connect() as conn:
        await conn.execute("UPDATE pipeline.runs SET cancel_requested = true WHERE owner IS NOT NULL")
    assert await served.ended(run) == CANCELLED
    let_go(served.folder, Stage.AUDIO)


async def test_a_run_that_waits_for_a_worker_ends_at_once_and_is_not_begun(served: Site) -> None:
    run = await served.accept()
    await served.cancel(run)
    assert await served.ended(run) == CANCELLED
    await served.notify(run)
    assert await served.ended(await served.start(RunType.AUDIO)) == COMPLETED  # which is heard of later
    assert served.stages(run) == []


async def test_nothing_is_left_of_a_cancelled_run(served: Site) -> None:
    hold(served.folder, Stage.CLIPS)
    run = await served.start()
    await served.begun(run, Stage.CLIPS)
    await served.cancel(run)
    assert await served.ended(run) == CANCELLED
    let_go(served.folder, Stage.CLIPS)
    assert await served.ended(await served.start(RunType.AUDIO)) == COMPLETED  # the worker is done with the other one
    async with served.redis() as redis:
        assert [key async for key in redis.scan_iter(f"*{run}*")] == [f"pipeline:run:{run}"]
        assert (await redis.hgetall(f"pipeline:run:{run}"))["status"] == "cancelled"


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
