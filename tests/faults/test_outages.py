"""Servers that are emptied, stopped and restarted during a run, cut connections, and a full disk."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.embedded import EmbeddedPostgres, EmbeddedValkey
from app.models.stages import RunType, Stage
from tests.conftest import Databases, migrate
from tests.faults.cutting_proxy import CuttingProxy
from tests.faults.site import COMPLETED, Ended, Site
from tests.faults.stages import RESULTS, STEADY, fill_disk, hold, let_go
from tests.serving import free_port

_CLAIM, _ADVANCE, _END = b"pipeline.claim_stage", b"last_error = NULL", b"WITH ended AS"


async def test_a_redis_that_is_emptied_loses_no_run(site: Site) -> None:
    hold(site.folder, Stage.TRANSCRIPT)
    async with site.worker(), site.redis() as redis:
        run = await site.start()
        await site.begun(run, Stage.TRANSCRIPT)
        await redis.flushdb()
        live = f"pipeline:{run.split(':')[1]}:active"
        await site.until(lambda: _is_there(redis, live), "what the worker shows")
        assert await redis.hget(live, "current_stage") == "transcript"
        let_go(site.folder, Stage.TRANSCRIPT)
        assert await site.ended(run) == COMPLETED
        assert await site.ended(await site.start()) == COMPLETED
    assert site.stages(run) == await site.results(run) == list(Stage)


async def test_a_worker_whose_redis_was_emptied_releases_what_it_has_when_it_ends(site: Site) -> None:
    hold(site.folder, Stage.AUDIO)
    async with site.worker(), site.redis() as redis:
        run = await site.start()
        await site.begun(run, Stage.AUDIO)
        await redis.flushdb()
        assert await site.ended(await site.start(RunType.TRANSCRIPT)) == COMPLETED  # its messages arrive again
    assert await site.attempts(run) == 0
    let_go(site.folder, Stage.AUDIO)
    async with site.worker():
        assert await site.ended(run) == COMPLETED
    assert await site.results(run) == list(Stage)


async def test_a_redis_that_is_away_keeps_no_run_from_its_end(
    own_database_url: str, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    site = Site(own_database_url, valkey.url, tmp_path)
    await site.prepare()
    hold(site.folder, Stage.TRANSCRIPT)
    async with site.worker():
        run = await site.start()
        await site.begun(run, Stage.TRANSCRIPT)
        valkey.stop()
        let_go(site.folder, Stage.TRANSCRIPT)
        assert await site.ended(run) == COMPLETED
        meanwhile = await site.start()
        valkey.start()
        assert await site.ended(meanwhile) == COMPLETED
        assert await site.ended(await site.start()) == COMPLETED
    assert site.stages(run) == await site.results(run) == list(Stage)


async def test_without_redis_a_worker_takes_the_runs_it_finds_and_no_more_at_once_than_it_may(
    own_database_url: str, tmp_path: Path
) -> None:
    site = Site(own_database_url, f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    async with site.connect() as conn:
        await conn.execute(RESULTS)
    runs = [await site.accept() for _ in range(3)]
    hold(site.folder, Stage.AUDIO)
    async with site.worker(pipeline_concurrency=2):
        begun: list[str] = []

        async def are_begun() -> bool:
            begun[:] = [run for run in runs if Stage.AUDIO in site.stages(run)]
            return len(begun) == 2

        await site.until(are_begun, "two runs to be taken")
        await asyncio.sleep(1.5)  # longer than the worker takes to look again for those that wait
        assert await are_begun()
        let_go(site.folder, Stage.AUDIO)
        for run in runs:
            assert await site.ended(run) == COMPLETED
            assert site.stages(run) == await site.results(run) == list(Stage)


async def test_what_a_worker_took_without_redis_it_gives_back_when_it_ends(
    own_database_url: str, tmp_path: Path
) -> None:
    site = Site(own_database_url, f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    async with site.connect() as conn:
        await conn.execute(RESULTS)
    hold(site.folder, Stage.AUDIO)
    run = await site.accept()
    async with site.worker():
        await site.begun(run, Stage.AUDIO)
    assert await site.attempts(run) == 0
    let_go(site.folder, Stage.AUDIO)
    async with site.worker():
        assert await site.ended(run) == COMPLETED


async def test_a_database_that_is_started_again_fails_no_run(
    postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    databases = Databases(postgres.url)
    database_url = databases.create()
    migrate(database_url)
    site = Site(database_url, redis_url, tmp_path)
    await site.prepare()
    hold(site.folder, Stage.GENERATION)
    worker = site.spawn(database_pool_timeout=1)
    try:
        run = await site.start()
        await site.begun(run, Stage.GENERATION)
        postgres.stop()
        let_go(site.folder, Stage.GENERATION)  # it saves what it has made, or tries to
        await site.until(lambda: _is_in(worker.log, "waits"), "the worker to see that the database is away")
        postgres.start()
        assert await site.ended(run) == COMPLETED
        assert await site.results(run) == list(Stage)
        assert await site.attempts(run) == 1
        assert "Traceback" not in worker.log.read_text()
    finally:
        worker.kill()


async def test_a_full_disk_fails_the_run_and_no_other_one(site: Site) -> None:
    fill_disk(site.folder, Stage.AUDIO)
    async with site.worker():
        run = await site.start()
        assert await site.ended(run) == Ended("failed", "audio", "There is no room for the files of the stage audio")
        (site.folder / f"fill-{Stage.AUDIO}").unlink()
        assert await site.ended(await site.start()) == COMPLETED
    assert await site.results(run) == ["download"]


async def _is_there(redis: Redis, key: str) -> bool:
    return bool(await redis.exists(key))


async def _is_in(log: Path, text: str) -> bool:
    return text in await asyncio.to_thread(log.read_text)


@pytest.mark.parametrize(
    "words",
    [(_CLAIM,), (_ADVANCE,), (_END, b"COMMIT")],
    ids=["the claim of a stage", "the end of a stage", "the end of the run"],
)
async def test_a_worker_that_never_learns_of_its_commit_loses_no_run(
    own_database_url: str, redis_url: str, tmp_path: Path, words: tuple[bytes, ...]
) -> None:
    await Site(own_database_url, redis_url, tmp_path).prepare()
    async with CuttingProxy(own_database_url, words).run() as proxy:
        site = Site(proxy.url, redis_url, tmp_path)
        async with site.worker(timings=replace(STEADY, stalled_after=3.0)):
            run = await site.start()
            assert await site.ended(run) == COMPLETED
        assert proxy.has_cut
        assert site.stages(run) == await site.results(run) == list(Stage)
