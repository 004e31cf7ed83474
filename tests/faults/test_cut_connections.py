"""A connection to PostgreSQL that is cut when a statement was committed and its answer has not arrived."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.models.stages import Stage
from tests.faults.cutting_proxy import CuttingProxy
from tests.faults.site import Ended, Site
from tests.faults.stages import STEADY

COMPLETED = Ended("completed", None, None)
_CLAIM, _ADVANCE, _END = b"pipeline.claim_stage", b"last_error = NULL", b"WITH ended AS"


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
