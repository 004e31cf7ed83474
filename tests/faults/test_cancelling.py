from collections.abc import AsyncIterator

import pytest

from app.models.stages import RunType, Stage
from tests.faults.site import Ended, Site
from tests.faults.stages import hold, let_go

CANCELLED = Ended("cancelled", None, None)
COMPLETED = Ended("completed", None, None)


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
