import asyncio
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from app.ai.protocols import RefineRequest, RefineResult
from app.core.errors import ModelAnswerInvalid, StageFailed, TransientFailure
from app.core.thread_pool import SlotSemaphore
from app.models.stages import RunType
from app.pipeline import moment_refiner
from app.pipeline.stages import generation, refinement
from app.repositories import GenerationConfigRepository, MomentRepository, PromptRepository, RunRepository
from tests.factories import make_moment, make_transcript
from tests.pipeline.contexts import make_context
from tests.pipeline.refinements import (
    SPANS,
    end_run,
    failing,
    list_families,
    list_moments,
    make_before,
    make_found,
    ready,
)
from tests.pipeline.scripted_models import ScriptedFinder, ScriptedModels, found, refined, talk
from tests.retries import remove_waits


async def test_each_original_gets_a_refined_moment(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder()
    async with ready(own_database_url, tmp_path, finder) as context:
        assert await refinement.skip_reason(context) is None
        result = await refinement.run_stage(context)
        moments = await list_moments(context)
        assert await list_families(context) == {"One": ["One"], "Two": ["Two"], "Three": ["Three"]}
    made = next(moment for moment in moments if moment.is_refined and moment.title == "Two")
    assert (made.start_time, made.end_time, made.generation_model) == (121.0, 159.0, "scripted/refiner-2b")
    assert len(made.identifier) == 16
    assert int(made.identifier, 16)
    assert result == {
        "total": 3,
        "successful": 3,
        "failed": 0,
        "video_included": 0,
        "model": "scripted/refiner-2b",
        "usage": {"calls": 3, "seconds": 1.5, "prompt_tokens": 300, "completion_tokens": 30},
    }
    assert context.progress == {"total": 3, "processed": 3, "successful": 3, "failed": 0}


async def test_a_model_is_shown_the_words_of_the_window(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder()
    wishes: dict[str, Any] = {"refinement_prompt": "Begin with a joke", "refinement_temperature": 0.2}
    async with ready(own_database_url, tmp_path, finder, moments=["One"], **wishes) as context:
        await refinement.run_stage(context)
    [request] = finder.refined
    assert (request.window_start, request.window_end, request.duration_seconds) == (30.0, 130.8, 300.0)
    assert (request.words[0].word, request.words[-1].word) == ("word30", "word130")
    assert (request.prompt, request.temperature, request.clip) == ("Begin with a joke", 0.2, None)


async def test_a_transcript_without_words_is_shown_by_its_segments(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder()
    async with make_context(own_database_url, tmp_path, models=ScriptedModels(finder=finder)) as context:
        async with context.database.connect() as conn:
            said = {**talk(300), "word_timestamps": []}
            await make_transcript(conn, video_id=context.run.video_id, **said)
            await make_found(conn, context.run.video_id, "One")
        await refinement.run_stage(context)
    assert finder.refined[0].words[0].word == "word30"


async def test_prompt_and_config_are_rows_before_the_model_is_asked(own_database_url: str, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    async def look() -> None:
        async with context.database.connect() as conn:
            run = await RunRepository(conn).get(context.run.id)
            assert run is not None
            config = await GenerationConfigRepository(conn).get(run.generation_config_id or 0)
            assert config is not None
            prompt = await PromptRepository(conn).get(config.prompt_id)
            assert prompt is not None
            seen.append((prompt.user_prompt, config.model, config.operation_type, config.temperature, config.top_p))
            seen.append((config.top_k, config.min_moment_length, config.max_moments, config.id))

    finder = ScriptedFinder(meanwhile=look)
    wishes: dict[str, Any] = {
        "refinement_prompt": "Short",
        "refinement_model": "minimax",
        "refinement_temperature": 0.2,
    }
    async with ready(own_database_url, tmp_path, finder, moments=["One"], **wishes) as context:
        await refinement.run_stage(context)
        made = (await list_moments(context))[-1]
    assert seen[0] == ("Short", "minimax", "refinement", 0.2, 0.9)
    assert seen[1] == (20, None, None, made.generation_config_id)


async def test_where_this_machine_refines_the_config_names_its_engine(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(is_local=True, model="local (tiny-2)", parameters={})
    async with ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        await refinement.run_stage(context)
        config_id = (await list_moments(context))[-1].generation_config_id
        async with context.database.connect() as conn:
            config = await GenerationConfigRepository(conn).get(config_id or 0)
    assert config is not None
    assert (config.model, config.temperature, config.operation_type) == ("local (tiny-2)", None, "refinement")


async def test_a_run_that_found_moments_names_the_config_of_that(own_database_url: str, tmp_path: Path) -> None:
    async with ready(own_database_url, tmp_path, ScriptedFinder(found((10.0, 50.0, "New")))) as context:
        await generation.run_stage(context)
        await refinement.run_stage(context)
        async with context.database.connect() as conn:
            run = await RunRepository(conn).get(context.run.id)
            assert run is not None
            config = await GenerationConfigRepository(conn).get(run.generation_config_id or 0)
    assert config is not None
    assert config.operation_type == "generation"


async def test_without_moments_or_with_nothing_left_to_refine_it_is_skipped(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    async with ready(own_database_url, tmp_path, finder, moments=[], override_existing_refinement=False) as context:
        assert await refinement.skip_reason(context) == "No moments to refine"
        async with context.database.connect() as conn:
            await make_found(conn, context.run.video_id, "Orphan", is_refined=True)
            assert await refinement.skip_reason(context) == "No moments to refine"
            one = await make_found(conn, context.run.video_id, "One")
            assert await refinement.skip_reason(context) is None
            await make_found(conn, context.run.video_id, "One", is_refined=True, parent_id=one.id)
        assert await refinement.skip_reason(context) == "All moments are refined already (1 moments)"


@pytest.mark.parametrize(("override", "asked"), [(True, ["One", "Three", "Two"]), (False, ["Three", "Two"])])
async def test_what_was_refined_before_is_replaced_or_left(
    own_database_url: str, tmp_path: Path, override: bool, asked: list[str]
) -> None:
    finder = ScriptedFinder()
    async with ready(own_database_url, tmp_path, finder, override_existing_refinement=override) as context:
        one = (await list_moments(context))[0]
        async with context.database.connect() as conn:
            before = await make_before(conn, "Before", one)
            # What older libraries hold: refined from a refined one, and from itself.
            await make_before(conn, "Deeper", before)
            itself = await make_found(conn, context.run.video_id, "Itself", is_refined=True)
            await MomentRepository(conn).update(itself.id, parent_id=itself.id)
        await refinement.run_stage(context)
        titles = sorted(moment.title for moment in await list_moments(context) if moment.is_refined)
    assert sorted(request.moment.title for request in finder.refined) == asked
    assert titles == (["Itself", "One", "Three", "Two"] if override else ["Before", "Deeper", "Itself", "Three", "Two"])


@pytest.mark.parametrize(("override_moments", "override_refinement", "by_hand"), list(product((True, False), repeat=3)))
async def test_a_third_run_has_as_many_rows_as_the_first(
    own_database_url: str, tmp_path: Path, override_moments: bool, override_refinement: bool, by_hand: bool
) -> None:
    finder = ScriptedFinder(found((60.0, 100.0, "One"), (120.0, 160.0, "Two")))
    wishes: dict[str, Any] = {
        "override_existing_moments": override_moments,
        "override_existing_refinement": override_refinement,
    }
    counts: list[dict[str, list[str]]] = []
    for _ in range(3):
        async with make_context(
            own_database_url, tmp_path, models=ScriptedModels(finder=finder), video={"identifier": "talk"}, **wishes
        ) as context:
            if not counts:
                async with context.database.connect() as conn:
                    await make_transcript(conn, video_id=context.run.video_id, **talk(300))
            for stage in (generation, refinement):
                if await stage.skip_reason(context) is None:
                    await stage.run_stage(context)
            if by_hand and not counts:
                async with context.database.connect() as conn:
                    await make_moment(conn, video_id=context.run.video_id, start_time=200, end_time=210, title="Mine")
            counts.append(await list_families(context))
            await end_run(context)
    assert counts[2] == counts[1]
    mine = {"Mine": ["Mine"]} if by_hand else {}
    assert counts[2] == {"One": ["One"], "Two": ["Two"], **mine}
    assert counts[0] == counts[2] or by_hand


@pytest.mark.parametrize("is_changed", [True, False])
async def test_one_moment_gets_one_more_refined_one_with_each_run_that_changes_times(
    own_database_url: str, tmp_path: Path, is_changed: bool
) -> None:
    finder = ScriptedFinder()
    if is_changed:
        finder.refine_answer = lambda request: refined(request.moment.start + len(finder.refined), request.moment.end)
    async with ready(own_database_url, tmp_path, finder) as context:
        two = (await list_moments(context))[1]
        await end_run(context)
        video = {"identifier": context.run.video}
        for _ in range(2):
            kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": two.identifier}
            async with make_context(own_database_url, tmp_path, models=context.models, video=video, **kind) as single:
                assert await refinement.skip_reason(single) is None
                result = await refinement.run_stage(single)
                await end_run(single)
        expected = ["Two", "Two"] if is_changed else ["Two"]
        assert await list_families(context) == {"One": [], "Two": expected, "Three": []}
    assert (result["total"], result["successful"]) == (1, 1)
    assert result.get("reason") == (None if is_changed else "Times were exact already")


@pytest.mark.parametrize("noise", [0.0, 0.00000000000001, -0.004])
async def test_an_unchanged_refinement_is_no_new_moment(own_database_url: str, tmp_path: Path, noise: float) -> None:
    def answer(request: RefineRequest) -> RefineResult:
        shift = 1.0 if request.moment.title == "Two" else noise
        return refined(request.moment.start + shift, request.moment.end)

    async with ready(own_database_url, tmp_path, ScriptedFinder(refine_answer=answer)) as context:
        result = await refinement.run_stage(context)
        assert await list_families(context) == {"One": [], "Two": ["Two"], "Three": []}
    assert (result["successful"], result["unchanged"]) == (3, 2)
    assert result["reason"] == "Times of 2 of 3 moments were exact already"


async def test_where_no_time_changes_what_was_refined_before_stays(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(refine_answer=lambda request: refined(request.moment.start, request.moment.end))
    async with ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        one = (await list_moments(context))[0]
        async with context.database.connect() as conn:
            await make_before(conn, "Before", one, start_time=61.0, end_time=99.0)
        result = await refinement.run_stage(context)
        assert await list_families(context) == {"One": ["Before"]}
    assert (result["unchanged"], result["reason"]) == (1, "Times were exact already")


async def test_refined_moments_are_in_the_order_of_time_whichever_is_finished_first(
    own_database_url: str, tmp_path: Path
) -> None:
    async def wait() -> None:
        await asyncio.sleep(0.2 if finder.refined[-1].moment.title == "One" else 0)

    finder = ScriptedFinder(meanwhile=wait)
    async with ready(own_database_url, tmp_path, finder, refinement_parallel_workers=3) as context:
        await refinement.run_stage(context)
        titles = [moment.title for moment in await list_moments(context) if moment.is_refined]
    assert titles == ["One", "Two", "Three"]


async def test_what_is_refined_from_a_refined_moment_hangs_under_the_original(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with ready(own_database_url, tmp_path, finder, **kind) as context:
        one = (await list_moments(context))[0]
        async with context.database.connect() as conn:
            better = {"is_refined": True, "parent_id": one.id, "identifier": "f" * 16, "start_time": 70.0}
            await make_found(conn, context.run.video_id, "One", **better)
        await refinement.run_stage(context)
        made = (await list_moments(context))[-1]
    assert (made.parent_id, made.start_time) == (one.id, 71.0)


async def test_a_moment_that_is_gone_cannot_be_refined(own_database_url: str, tmp_path: Path) -> None:
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with ready(own_database_url, tmp_path, ScriptedFinder(), **kind) as context:
        with pytest.raises(StageFailed, match=r"^The moment was deleted$"):
            await refinement.run_stage(context)


async def test_without_a_transcript_it_says_what_to_do_first(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path) as context:
        with pytest.raises(StageFailed, match=r"^Transcript not found\. Please generate transcript first\.$"):
            await refinement.run_stage(context)


async def test_one_that_fails_does_not_stop_the_others(own_database_url: str, tmp_path: Path) -> None:
    async with ready(own_database_url, tmp_path, failing("One")) as context:
        result = await refinement.run_stage(context)
        assert await list_families(context) == {"One": [], "Two": ["Two"], "Three": ["Three"]}
    assert (result["total"], result["successful"], result["failed"]) == (3, 2, 1)
    assert result["reason"] == "One is too hard"
    assert context.progress == {"total": 3, "processed": 3, "successful": 2, "failed": 1}


async def test_the_stage_fails_where_all_moments_do_and_the_old_ones_stay(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = failing(*SPANS, error=ModelAnswerInvalid("The answer is no JSON", "Sure!"))
    async with ready(own_database_url, tmp_path, finder) as context:
        one = (await list_moments(context))[0]
        async with context.database.connect() as conn:
            await make_before(conn, "Before", one)
        with pytest.raises(StageFailed, match=r"^The answer is no JSON$"):
            await refinement.run_stage(context)
        assert await list_families(context) == {"One": ["Before"], "Two": [], "Three": []}
        async with context.database.connect() as conn:
            cursor = await conn.execute("SELECT raw_answer FROM pipeline.runs")
            assert await cursor.fetchall() == [("Sure!",)]


async def test_a_failure_that_may_pass_is_tried_again_for_that_moment(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_waits(monkeypatch, "app.pipeline.moment_refiner._MODEL_POLICY")
    tries: dict[str, int] = {}

    def answer(request: RefineRequest) -> RefineResult | Exception:
        title = request.moment.title
        tries[title] = tries.get(title, 0) + 1
        if title == "Two" or (title == "One" and tries[title] < 3):
            return TransientFailure("The service is busy")
        return refined(request.moment.start, request.moment.end)

    async with ready(own_database_url, tmp_path, ScriptedFinder(refine_answer=answer)) as context:
        result = await refinement.run_stage(context)
    assert tries == {"One": 3, "Two": 3, "Three": 1}
    assert (result["successful"], result["failed"], result["reason"]) == (2, 1, "The service is busy")


async def test_a_moment_that_takes_too_long_fails_alone(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moment_refiner, "TIME_LIMIT_SECONDS", 0.2)
    finder = ScriptedFinder(meanwhile=lambda: asyncio.sleep(3600))
    async with ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        with pytest.raises(StageFailed, match="took longer than"):
            await refinement.run_stage(context)


async def test_a_moment_that_waits_for_its_turn_has_its_time_from_then_on(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moment_refiner, "TIME_LIMIT_SECONDS", 2.0)
    turns, asked = SlotSemaphore(), asyncio.Event()

    async def work() -> None:
        asked.set()
        async with turns.hold_slot():
            await asyncio.sleep(0.05)

    finder = ScriptedFinder(meanwhile=work)
    async with ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        async with turns.hold_slot():
            working = asyncio.ensure_future(refinement.run_stage(context))
            async with asyncio.timeout(60):
                await asked.wait()
            await asyncio.sleep(2.3)
        assert (await working)["successful"] == 1


@pytest.mark.parametrize(
    ("start", "end", "problem"),
    [
        (float("nan"), 90.0, "no numbers"),
        (60.0, float("inf"), "no numbers"),
        (29.9, 90.0, "outside"),
        (60.0, 131.0, "outside"),
        (90.0, 90.0, "ends before it begins"),
        (29.96, 29.98, "ends before it begins"),
    ],
)
async def test_times_that_cannot_be_are_refused(
    own_database_url: str, tmp_path: Path, start: float, end: float, problem: str
) -> None:
    finder = ScriptedFinder(refine_answer=lambda _: refined(start, end))
    async with ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        with pytest.raises(StageFailed, match=problem):
            await refinement.run_stage(context)
        assert await list_families(context) == {"One": []}


async def test_times_that_were_rounded_are_brought_back_into_the_window(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(refine_answer=lambda _: refined(29.96, 130.84))
    async with ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        await refinement.run_stage(context)
        made = (await list_moments(context))[-1]
    assert (made.start_time, made.end_time) == (30.0, 130.8)


async def test_no_more_calls_than_were_asked_for_are_under_way(own_database_url: str, tmp_path: Path) -> None:
    under_way, most, are_three = 0, 0, asyncio.Event()

    async def call() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            are_three.set()
        async with asyncio.timeout(60):
            await are_three.wait()
        await asyncio.sleep(0.05)
        under_way -= 1

    titles = [f"Moment {index}" for index in range(8)]
    async with ready(
        own_database_url, tmp_path, ScriptedFinder(meanwhile=call), moments=titles, refinement_parallel_workers=3
    ) as context:
        await refinement.run_stage(context)
    assert most == 3
