"""What others do while moments are refined: workers that take over, users who delete."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.ai.protocols import Refined, RefineRequest
from app.core.errors import RunLost, StageFailed
from app.models.stages import RunType
from app.pipeline import moment_refiner
from app.pipeline.stages import refinement
from app.repositories import MomentRepository, VideoRepository
from tests.pipeline.contexts import take_over
from tests.pipeline.refinements import (
    failing,
    list_families,
    list_moments,
    make_before,
    make_found,
    ready,
)
from tests.pipeline.scripted_models import ScriptedFinder, refined


async def test_a_worker_that_takes_over_keeps_the_order_and_does_not_ask_about_exact_times_again(
    own_database_url: str, tmp_path: Path
) -> None:
    def answer(request: RefineRequest) -> Refined | Exception:
        if request.moment.title == "Two":
            return RunLost()
        return refined(request.moment.start + (request.moment.title != "One"), request.moment.end)

    async def wait() -> None:
        is_two = finder.refined[-1].moment.title == "Two"
        while is_two and not await are_others_done():  # noqa: ASYNC110  nobody sets an event
            await asyncio.sleep(0.01)

    async def are_others_done() -> bool:
        async with context.database.connect() as conn:
            exact = await moment_refiner.list_unchanged_ids(conn, context)
        return bool(exact and (await list_families(context))["Three"])

    finder = ScriptedFinder(refine_answer=answer, meanwhile=wait)
    async with ready(own_database_url, tmp_path, finder) as context:
        with pytest.raises(RunLost):
            await refinement.run_stage(context)
        assert await list_families(context) == {"One": [], "Two": [], "Three": ["Three"]}
        finder.refine_answer = lambda request: refined(request.moment.start + 2, request.moment.end)
        finder.refined.clear()
        result = await refinement.run_stage(await take_over(context))
        titles = [moment.title for moment in await list_moments(context) if moment.is_refined]
    assert [request.moment.title for request in finder.refined] == ["Two"]
    assert titles == ["Two", "Three"]
    assert (result["successful"], result["unchanged"]) == (3, 1)


@pytest.mark.parametrize("override", [True, False])
async def test_a_worker_that_takes_over_refines_what_is_missing(
    own_database_url: str, tmp_path: Path, override: bool
) -> None:
    finder = failing("Three", error=RunLost())
    wishes: dict[str, Any] = {"override_existing_refinement": override, "refinement_parallel_workers": 1}
    async with ready(own_database_url, tmp_path, finder, **wishes) as context:
        one = (await list_moments(context))[0]
        if override:
            async with context.database.connect() as conn:
                await make_before(conn, "Before", one)
        with pytest.raises(RunLost):
            await refinement.run_stage(context)
        finder.refine_answer = lambda request: refined(request.moment.start + 2, request.moment.end)
        finder.refined.clear()
        second = await take_over(context)
        assert await refinement.skip_reason(second) is None
        result = await refinement.run_stage(second)
        assert await list_families(context) == {"One": ["One"], "Two": ["Two"], "Three": ["Three"]}
    assert [request.moment.title for request in finder.refined] == ["Three"]
    assert (result["total"], result["successful"]) == (3, 3)


async def test_a_worker_that_takes_over_does_not_refine_the_one_moment_twice(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with ready(own_database_url, tmp_path, finder, moments=[], **kind) as context:
        async with context.database.connect() as conn:
            await make_found(conn, context.run.video_id, "One", identifier="f" * 16)
        await refinement.run_stage(context)
        result = await refinement.run_stage(await take_over(context))
        assert await list_families(context) == {"One": ["One"]}
    assert (len(finder.refined), result["successful"]) == (1, 1)


async def test_a_moment_that_was_refined_meanwhile_gets_no_second_one(own_database_url: str, tmp_path: Path) -> None:
    async def refine() -> None:
        async with context.database.connect() as conn:
            await make_found(conn, context.run.video_id, "Meanwhile", is_refined=True, parent_id=one.id)

    finder = ScriptedFinder(meanwhile=refine)
    wishes: dict[str, Any] = {"override_existing_refinement": False, "moments": ["One"]}
    async with ready(own_database_url, tmp_path, finder, **wishes) as context:
        one = (await list_moments(context))[0]
        await refinement.run_stage(context)
        assert await list_families(context) == {"One": ["Meanwhile"]}


async def test_an_original_that_is_deleted_meanwhile_is_no_failure(own_database_url: str, tmp_path: Path) -> None:
    async def delete() -> None:
        async with context.database.connect() as conn:
            await MomentRepository(conn).delete(one.id)

    async with ready(own_database_url, tmp_path, ScriptedFinder(meanwhile=delete)) as context:
        one = (await list_moments(context))[0]
        result = await refinement.run_stage(context)
        assert await list_families(context) == {"Two": ["Two"], "Three": ["Three"]}
    assert (result["failed"], result["kept"]) == (0, 1)
    assert result["reason"] == "The moment was deleted (1 of 3 moments)"


async def test_a_video_that_is_deleted_meanwhile_ends_the_stage_at_once(own_database_url: str, tmp_path: Path) -> None:
    async def delete() -> None:
        async with context.database.connect() as conn:
            await VideoRepository(conn).delete(context.run.video_id)

    finder = ScriptedFinder(meanwhile=delete)
    async with ready(own_database_url, tmp_path, finder, refinement_parallel_workers=1) as context:
        with pytest.raises(StageFailed, match=r"^The video was deleted$"):
            await refinement.run_stage(context)
    assert len(finder.refined) == 1


async def test_a_worker_that_lost_its_run_writes_nothing_and_asks_no_more(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    async with ready(own_database_url, tmp_path, finder, refinement_parallel_workers=1) as context:
        finder.meanwhile = lambda: take_over(context)
        with pytest.raises(RunLost):
            await refinement.run_stage(context)
        assert await list_families(context) == {"One": [], "Two": [], "Three": []}
    assert len(finder.refined) == 1
