from pathlib import Path

from app.models.stages import Stage
from tests.faults.site import Ended, Site
from tests.pgbouncer import needs_pgbouncer, run_pgbouncer

COMPLETED = Ended("completed", None, None)


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
