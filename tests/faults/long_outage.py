"""Two workers whose PostgreSQL is away for longer than a worker may be silent, with runs in each kind of state."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.embedded import EmbeddedPostgres, EmbeddedValkey
from app.models.stages import RunType, Stage
from tests.conftest import Databases, migrate
from tests.embedded.servers import QUICK
from tests.faults.site import Site, WorkerProcess
from tests.faults.stages import hold, hold_saved, let_go, let_go_saved
from tests.serving import free_port

_OUTAGE_SECONDS = 90.0


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
