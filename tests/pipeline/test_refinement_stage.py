import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from app.ai.protocols import Refined, RefineRequest
from app.core.errors import ModelAnswerInvalid, RunLost, StageFailed, TransientFailure
from app.core.turns import Turns
from app.database import Connection
from app.models import Moment
from app.models.run import RunType
from app.pipeline import refining
from app.pipeline.context import RunContext
from app.pipeline.stages import generation
from app.pipeline.stages.refinement import WORK
from app.repositories import (
    GenerationConfigRepository,
    MomentRepository,
    PipelineHistoryRepository,
    PromptRepository,
    VideoRepository,
)
from app.storage import clip_folder
from tests.factories import make_clip, make_generation_config, make_moment, make_transcript
from tests.pipeline.contexts import make_context, take_over
from tests.pipeline.scripted_models import ScriptedFinder, ScriptedModels, found, refined, talk

_SPANS = {"One": (60.0, 100.0), "Two": (120.0, 160.0), "Three": (180.0, 220.0)}


@asynccontextmanager
async def _ready(
    url: str, folder: Path, finder: ScriptedFinder, *, moments: Sequence[str] = tuple(_SPANS), **values: Any
) -> AsyncIterator[RunContext]:
    """A run over a video of 300 s in which something is said in each second, and moments that a model has found."""
    async with make_context(url, folder, models=ScriptedModels(finder=finder), **values) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, **talk(300))
            for title in moments:
                await _make_found(conn, context.run.video_id, title)
        yield context


async def _make_found(conn: Connection, video_id: int, title: str, **values: Any) -> Moment:
    start, end = _SPANS.get(title, (10.0, 20.0))
    config = await make_generation_config(conn)
    defaults = {"title": title, "start_time": start, "end_time": end, "generation_config_id": config.id}
    return await make_moment(conn, video_id=video_id, **(defaults | values))


async def _make_before(conn: Connection, title: str, parent: Moment, **values: Any) -> Moment:
    """A refined moment that is older than the run."""
    moment = await _make_found(conn, parent.video_id, title, is_refined=True, parent_id=parent.id, **values)
    await conn.execute(
        "UPDATE moments SET created_at = created_at - interval '1 hour' WHERE id = %(id)s", {"id": moment.id}
    )
    return moment


async def _list(context: RunContext) -> list[Moment]:
    async with context.database.connect() as conn:
        return await MomentRepository(conn).list_by_video(context.run.video_id)


async def _families(context: RunContext) -> dict[str, list[str]]:
    """The refined moments under each original, by titles."""
    moments = await _list(context)
    titles = {moment.id: moment.title for moment in moments if not moment.is_refined}
    groups: dict[str, list[str]] = {title: [] for title in titles.values()}
    for moment in moments:
        if moment.is_refined:
            groups[titles[moment.parent_id or 0]].append(moment.title)
    return groups


async def _end(context: RunContext) -> None:
    async with context.database.connect() as conn:
        await PipelineHistoryRepository(conn).update(context.run.id, status="completed")


def _failing(*titles: str, error: Exception | None = None) -> ScriptedFinder:
    """A finder that refines all moments but these."""

    def answer(request: RefineRequest) -> Refined | Exception:
        if request.moment.title in titles:
            return error or StageFailed(f"{request.moment.title} is\0 too hard")
        return refined(request.moment.start + 1, request.moment.end - 1)

    return ScriptedFinder(refine_answer=answer)


async def test_each_original_gets_a_refined_moment(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder()
    async with _ready(own_database_url, tmp_path, finder) as context:
        assert await WORK.skip_reason(context) is None
        result = await WORK.work(context)
        moments = await _list(context)
        assert await _families(context) == {"One": ["One"], "Two": ["Two"], "Three": ["Three"]}
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
    async with _ready(own_database_url, tmp_path, finder, moments=["One"], **wishes) as context:
        await WORK.work(context)
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
            await _make_found(conn, context.run.video_id, "One")
        await WORK.work(context)
    assert finder.refined[0].words[0].word == "word30"


async def test_prompt_and_config_are_rows_before_the_model_is_asked(own_database_url: str, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    async def look() -> None:
        async with context.database.connect() as conn:
            run = await PipelineHistoryRepository(conn).get(context.run.id)
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
    async with _ready(own_database_url, tmp_path, finder, moments=["One"], **wishes) as context:
        await WORK.work(context)
        made = (await _list(context))[-1]
    assert seen[0] == ("Short", "minimax", "refinement", 0.2, 0.9)
    assert seen[1] == (20, None, None, made.generation_config_id)


async def test_where_this_machine_refines_the_config_names_its_engine(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(is_local=True, model="local (tiny-2)", parameters={})
    async with _ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        await WORK.work(context)
        config_id = (await _list(context))[-1].generation_config_id
        async with context.database.connect() as conn:
            config = await GenerationConfigRepository(conn).get(config_id or 0)
    assert config is not None
    assert (config.model, config.temperature, config.operation_type) == ("local (tiny-2)", None, "refinement")


async def test_a_run_that_found_moments_names_the_config_of_that(own_database_url: str, tmp_path: Path) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(found((10.0, 50.0, "New")))) as context:
        await generation.WORK.work(context)
        await WORK.work(context)
        async with context.database.connect() as conn:
            run = await PipelineHistoryRepository(conn).get(context.run.id)
            assert run is not None
            config = await GenerationConfigRepository(conn).get(run.generation_config_id or 0)
    assert config is not None
    assert config.operation_type == "generation"


async def test_without_moments_or_with_nothing_left_to_refine_it_is_skipped(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    async with _ready(own_database_url, tmp_path, finder, moments=[], override_existing_refinement=False) as context:
        assert await WORK.skip_reason(context) == "No moments to refine"
        async with context.database.connect() as conn:
            await _make_found(conn, context.run.video_id, "Orphan", is_refined=True)
            assert await WORK.skip_reason(context) == "No moments to refine"
            one = await _make_found(conn, context.run.video_id, "One")
            assert await WORK.skip_reason(context) is None
            await _make_found(conn, context.run.video_id, "One", is_refined=True, parent_id=one.id)
        assert await WORK.skip_reason(context) == "All moments are refined already (1 moments)"


@pytest.mark.parametrize(("override", "asked"), [(True, ["One", "Three", "Two"]), (False, ["Three", "Two"])])
async def test_what_was_refined_before_is_replaced_or_left(
    own_database_url: str, tmp_path: Path, override: bool, asked: list[str]
) -> None:
    finder = ScriptedFinder()
    async with _ready(own_database_url, tmp_path, finder, override_existing_refinement=override) as context:
        one = (await _list(context))[0]
        async with context.database.connect() as conn:
            before = await _make_before(conn, "Before", one)
            # What older libraries hold: refined from a refined one, and from itself.
            await _make_before(conn, "Deeper", before)
            itself = await _make_found(conn, context.run.video_id, "Itself", is_refined=True)
            await MomentRepository(conn).update(itself.id, parent_id=itself.id)
        await WORK.work(context)
        titles = sorted(moment.title for moment in await _list(context) if moment.is_refined)
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
            for stage in (generation.WORK, WORK):
                if await stage.skip_reason(context) is None:
                    await stage.work(context)
            if by_hand and not counts:
                async with context.database.connect() as conn:
                    await make_moment(conn, video_id=context.run.video_id, start_time=200, end_time=210, title="Mine")
            counts.append(await _families(context))
            await _end(context)
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
    async with _ready(own_database_url, tmp_path, finder) as context:
        two = (await _list(context))[1]
        await _end(context)
        video = {"identifier": context.run.video}
        for _ in range(2):
            kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": two.identifier}
            async with make_context(own_database_url, tmp_path, models=context.models, video=video, **kind) as single:
                assert await WORK.skip_reason(single) is None
                result = await WORK.work(single)
                await _end(single)
        expected = ["Two", "Two"] if is_changed else ["Two"]
        assert await _families(context) == {"One": [], "Two": expected, "Three": []}
    assert (result["total"], result["successful"]) == (1, 1)
    assert result.get("reason") == (None if is_changed else "Times were exact already")


@pytest.mark.parametrize("noise", [0.0, 0.00000000000001, -0.004])
async def test_an_unchanged_refinement_is_no_new_moment(own_database_url: str, tmp_path: Path, noise: float) -> None:
    def answer(request: RefineRequest) -> Refined:
        shift = 1.0 if request.moment.title == "Two" else noise
        return refined(request.moment.start + shift, request.moment.end)

    async with _ready(own_database_url, tmp_path, ScriptedFinder(refine_answer=answer)) as context:
        result = await WORK.work(context)
        assert await _families(context) == {"One": [], "Two": ["Two"], "Three": []}
    assert (result["successful"], result["unchanged"]) == (3, 2)
    assert result["reason"] == "Times of 2 of 3 moments were exact already"


async def test_where_no_time_changes_what_was_refined_before_stays(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(refine_answer=lambda request: refined(request.moment.start, request.moment.end))
    async with _ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        one = (await _list(context))[0]
        async with context.database.connect() as conn:
            await _make_before(conn, "Before", one, start_time=61.0, end_time=99.0)
        result = await WORK.work(context)
        assert await _families(context) == {"One": ["Before"]}
    assert (result["unchanged"], result["reason"]) == (1, "Times were exact already")


async def test_refined_moments_are_in_the_order_of_time_whichever_is_finished_first(
    own_database_url: str, tmp_path: Path
) -> None:
    async def wait() -> None:
        await asyncio.sleep(0.2 if finder.refined[-1].moment.title == "One" else 0)

    finder = ScriptedFinder(meanwhile=wait)
    async with _ready(own_database_url, tmp_path, finder, refinement_parallel_workers=3) as context:
        await WORK.work(context)
        titles = [moment.title for moment in await _list(context) if moment.is_refined]
    assert titles == ["One", "Two", "Three"]


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
            exact = await refining.list_exact(conn, context)
        return bool(exact and (await _families(context))["Three"])

    finder = ScriptedFinder(refine_answer=answer, meanwhile=wait)
    async with _ready(own_database_url, tmp_path, finder) as context:
        with pytest.raises(RunLost):
            await WORK.work(context)
        assert await _families(context) == {"One": [], "Two": [], "Three": ["Three"]}
        finder.refine_answer = lambda request: refined(request.moment.start + 2, request.moment.end)
        finder.refined.clear()
        result = await WORK.work(await take_over(context))
        titles = [moment.title for moment in await _list(context) if moment.is_refined]
    assert [request.moment.title for request in finder.refined] == ["Two"]
    assert titles == ["Two", "Three"]
    assert (result["successful"], result["unchanged"]) == (3, 1)


async def test_what_is_refined_from_a_refined_moment_hangs_under_the_original(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with _ready(own_database_url, tmp_path, finder, **kind) as context:
        one = (await _list(context))[0]
        async with context.database.connect() as conn:
            better = {"is_refined": True, "parent_id": one.id, "identifier": "f" * 16, "start_time": 70.0}
            await _make_found(conn, context.run.video_id, "One", **better)
        await WORK.work(context)
        made = (await _list(context))[-1]
    assert (made.parent_id, made.start_time) == (one.id, 71.0)


async def test_a_moment_that_is_gone_cannot_be_refined(own_database_url: str, tmp_path: Path) -> None:
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with _ready(own_database_url, tmp_path, ScriptedFinder(), **kind) as context:
        with pytest.raises(StageFailed, match=r"^The moment was deleted$"):
            await WORK.work(context)


async def test_without_a_transcript_it_says_what_to_do_first(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path) as context:
        with pytest.raises(StageFailed, match=r"^Transcript not found\. Please generate transcript first\.$"):
            await WORK.work(context)


async def test_one_that_fails_does_not_stop_the_others(own_database_url: str, tmp_path: Path) -> None:
    async with _ready(own_database_url, tmp_path, _failing("One")) as context:
        result = await WORK.work(context)
        assert await _families(context) == {"One": [], "Two": ["Two"], "Three": ["Three"]}
    assert (result["total"], result["successful"], result["failed"]) == (3, 2, 1)
    assert result["reason"] == "One is too hard"
    assert context.progress == {"total": 3, "processed": 3, "successful": 2, "failed": 1}


async def test_the_stage_fails_where_all_moments_do_and_the_old_ones_stay(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = _failing(*_SPANS, error=ModelAnswerInvalid("The answer is no JSON", "Sure!"))
    async with _ready(own_database_url, tmp_path, finder) as context:
        one = (await _list(context))[0]
        async with context.database.connect() as conn:
            await _make_before(conn, "Before", one)
        with pytest.raises(StageFailed, match=r"^The answer is no JSON$"):
            await WORK.work(context)
        assert await _families(context) == {"One": ["Before"], "Two": [], "Three": []}
        async with context.database.connect() as conn:
            cursor = await conn.execute("SELECT raw_answer FROM pipeline.work")
            assert await cursor.fetchall() == [("Sure!",)]


async def test_a_failure_that_may_pass_is_tried_again_for_that_moment(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining, "_FIRST_PAUSE_SECONDS", 0.001)
    tries: dict[str, int] = {}

    def answer(request: RefineRequest) -> Refined | Exception:
        title = request.moment.title
        tries[title] = tries.get(title, 0) + 1
        if title == "Two" or (title == "One" and tries[title] < 3):
            return TransientFailure("The service is busy")
        return refined(request.moment.start, request.moment.end)

    async with _ready(own_database_url, tmp_path, ScriptedFinder(refine_answer=answer)) as context:
        result = await WORK.work(context)
    assert tries == {"One": 3, "Two": 3, "Three": 1}
    assert (result["successful"], result["failed"], result["reason"]) == (2, 1, "The service is busy")


async def test_a_moment_that_takes_too_long_fails_alone(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining, "LIMIT_SECONDS", 0.2)
    finder = ScriptedFinder(meanwhile=lambda: asyncio.sleep(3600))
    async with _ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        with pytest.raises(StageFailed, match="took longer than"):
            await WORK.work(context)


async def test_a_moment_that_waits_for_its_turn_has_its_time_from_then_on(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining, "LIMIT_SECONDS", 0.5)
    turns, asked = Turns(), asyncio.Event()

    async def work() -> None:
        asked.set()
        async with turns.take():
            await asyncio.sleep(0.05)

    finder = ScriptedFinder(meanwhile=work)
    async with _ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        async with turns.take():
            working = asyncio.ensure_future(WORK.work(context))
            async with asyncio.timeout(60):
                await asked.wait()
            await asyncio.sleep(0.8)
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
    async with _ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        with pytest.raises(StageFailed, match=problem):
            await WORK.work(context)
        assert await _families(context) == {"One": []}


async def test_times_that_were_rounded_are_brought_back_into_the_window(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(refine_answer=lambda _: refined(29.96, 130.84))
    async with _ready(own_database_url, tmp_path, finder, moments=["One"]) as context:
        await WORK.work(context)
        made = (await _list(context))[-1]
    assert (made.start_time, made.end_time) == (30.0, 130.8)


async def test_no_more_calls_than_were_asked_for_are_under_way(own_database_url: str, tmp_path: Path) -> None:
    under_way, most = 0, 0

    async def call() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await asyncio.sleep(0.001)
        under_way -= 1

    titles = [f"Moment {index}" for index in range(8)]
    async with _ready(
        own_database_url, tmp_path, ScriptedFinder(meanwhile=call), moments=titles, refinement_parallel_workers=3
    ) as context:
        await WORK.work(context)
    assert 1 < most <= 3


async def _put_clip(context: RunContext, title: str, content: bytes = b"a film", **values: Any) -> str:
    source = context.folder / "clip.mp4"
    await asyncio.to_thread(source.write_bytes, content)
    key = f"{clip_folder(context.run.video)}/{title}.mp4"
    url = (await context.storage.put(key, source)).url
    moment = next(moment for moment in await _list(context) if moment.title == title)
    async with context.database.connect() as conn:
        await make_clip(conn, moment, **({"cloud_url": url, "start_time": 40.0, "end_time": 125.5} | values))
    return url


async def test_a_model_that_sees_is_shown_the_clip_and_what_is_said_in_it(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder(supports_video=True)
    async with _ready(own_database_url, tmp_path, finder, moments=["One", "Two"]) as context:
        await _put_clip(context, "One")
        result = await WORK.work(context)
        configs = {moment.generation_config_id for moment in await _list(context) if moment.is_refined}
    one, two = sorted(finder.refined, key=lambda request: request.moment.start)
    assert one.clip is not None
    assert one.clip.url == "data:video/mp4;base64," + base64.b64encode(b"a film").decode()
    assert (one.window_start, one.window_end) == (40.0, 125.5)
    assert (one.words[0].word, one.words[-1].word) == ("word40", "word124")
    assert two.clip is None
    assert (result["successful"], result["video_included"]) == (2, 1)
    assert len(configs) == 2


async def test_a_clip_in_a_bucket_is_shown_by_its_link(own_database_url: str, tmp_path: Path, bucket: str) -> None:
    finder = ScriptedFinder(supports_video=True)
    settings = {"storage_url": f"gs://{bucket}/media"}
    async with _ready(own_database_url, tmp_path, finder, moments=["One"], settings=settings) as context:
        await _put_clip(context, "One")
        await WORK.work(context)
    assert finder.refined[0].clip is not None
    assert "X-Goog-Signature" in finder.refined[0].clip.url


@pytest.mark.parametrize(
    ("public_url", "api_keys"),
    [("https://videos.example", ""), ("https://videos.example", f"ops:write:{'0' * 64}"), (None, "")],
)
async def test_a_clip_that_is_too_large_to_send_has_the_address_of_this_server_unless_keys_close_it(
    own_database_url: str, tmp_path: Path, public_url: str | None, api_keys: str
) -> None:
    finder = ScriptedFinder(supports_video=True)
    video = {"identifier": "a talk"}
    settings = {"public_url": public_url, "api_keys": api_keys}
    async with _ready(own_database_url, tmp_path, finder, moments=["One"], video=video, settings=settings) as context:
        await _put_clip(context, "One", bytes(20 * 1024**2 + 1))
        moment = (await _list(context))[0]
        result = await WORK.work(context)
    clip = finder.refined[0].clip
    if public_url is None or api_keys:
        assert (clip, result["video_included"]) == (None, 0)
    else:
        assert clip is not None
        assert clip.url == f"https://videos.example/moment_clips/a%20talk_{moment.identifier}_clip.mp4"


async def test_a_moment_is_refined_without_a_clip_that_is_lost_or_shows_something_else(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder(supports_video=True)
    async with _ready(own_database_url, tmp_path, finder) as context:
        await context.storage.delete(await _put_clip(context, "One"))
        await _put_clip(context, "Two", start_time=121.0, end_time=200.0)
        await _put_clip(context, "Three", start_time=150.0, end_time=219.0)
        result = await WORK.work(context)
    assert [request.clip for request in finder.refined] == [None, None, None]
    assert (result["successful"], result["video_included"]) == (3, 0)


@pytest.mark.parametrize(("supports", "wanted"), [(False, True), (True, False)])
async def test_no_clip_is_shown_where_none_is_wanted_or_seen(
    own_database_url: str, tmp_path: Path, supports: bool, wanted: bool
) -> None:
    finder = ScriptedFinder(supports_video=supports)
    async with _ready(own_database_url, tmp_path, finder, moments=["One"], include_video_refinement=wanted) as context:
        await _put_clip(context, "One")
        await WORK.work(context)
    assert finder.refined[0].clip is None


async def test_where_nothing_is_said_the_one_moment_cannot_be_refined(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder()
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with make_context(own_database_url, tmp_path, models=ScriptedModels(finder=finder), **kind) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, word_timestamps=[], segment_timestamps=[])
            await _make_found(conn, context.run.video_id, "One", identifier="f" * 16)
        with pytest.raises(StageFailed, match=r"^Nothing is said around the moment$"):
            await WORK.work(context)
    assert finder.refined == []


@pytest.mark.parametrize(
    ("seconds", "moments", "kept", "reason"),
    [
        (0, ["One"], 1, "Nothing is said around the moment"),
        (0, list(_SPANS), 3, "Nothing is said around the moment (3 of 3 moments)"),
        (120, list(_SPANS), 1, "Nothing is said around the moment (1 of 3 moments)"),
    ],
)
async def test_moments_around_which_nothing_is_said_stay_as_they_are_in_a_run_over_the_video(
    own_database_url: str, tmp_path: Path, seconds: int, moments: list[str], kept: int, reason: str
) -> None:
    finder = ScriptedFinder()
    async with make_context(own_database_url, tmp_path, models=ScriptedModels(finder=finder)) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, **talk(seconds))
            for title in moments:
                await _make_found(conn, context.run.video_id, title, generation_config_id=None)
        result = await WORK.work(context)
        made = [moment.title for moment in await _list(context) if moment.is_refined]
    assert made == moments[: len(moments) - kept]
    assert (result["failed"], result["successful"], result["kept"]) == (0, len(made), kept)
    assert result["reason"] == reason
    assert context.progress == {
        "total": len(moments),
        "processed": len(moments),
        "successful": len(made),
        "failed": 0,
    }


@pytest.mark.parametrize("override", [True, False])
async def test_a_worker_that_takes_over_refines_what_is_missing(
    own_database_url: str, tmp_path: Path, override: bool
) -> None:
    finder = _failing("Three", error=RunLost())
    wishes: dict[str, Any] = {"override_existing_refinement": override, "refinement_parallel_workers": 1}
    async with _ready(own_database_url, tmp_path, finder, **wishes) as context:
        one = (await _list(context))[0]
        if override:
            async with context.database.connect() as conn:
                await _make_before(conn, "Before", one)
        with pytest.raises(RunLost):
            await WORK.work(context)
        finder.refine_answer = lambda request: refined(request.moment.start + 2, request.moment.end)
        finder.refined.clear()
        second = await take_over(context)
        assert await WORK.skip_reason(second) is None
        result = await WORK.work(second)
        assert await _families(context) == {"One": ["One"], "Two": ["Two"], "Three": ["Three"]}
    assert [request.moment.title for request in finder.refined] == ["Three"]
    assert (result["total"], result["successful"]) == (3, 3)


async def test_a_worker_that_takes_over_does_not_refine_the_one_moment_twice(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with _ready(own_database_url, tmp_path, finder, moments=[], **kind) as context:
        async with context.database.connect() as conn:
            await _make_found(conn, context.run.video_id, "One", identifier="f" * 16)
        await WORK.work(context)
        result = await WORK.work(await take_over(context))
        assert await _families(context) == {"One": ["One"]}
    assert (len(finder.refined), result["successful"]) == (1, 1)


async def test_a_moment_that_was_refined_meanwhile_gets_no_second_one(own_database_url: str, tmp_path: Path) -> None:
    async def refine() -> None:
        async with context.database.connect() as conn:
            await _make_found(conn, context.run.video_id, "Meanwhile", is_refined=True, parent_id=one.id)

    finder = ScriptedFinder(meanwhile=refine)
    wishes: dict[str, Any] = {"override_existing_refinement": False, "moments": ["One"]}
    async with _ready(own_database_url, tmp_path, finder, **wishes) as context:
        one = (await _list(context))[0]
        await WORK.work(context)
        assert await _families(context) == {"One": ["Meanwhile"]}


async def test_an_original_that_is_deleted_meanwhile_is_no_failure(own_database_url: str, tmp_path: Path) -> None:
    async def delete() -> None:
        async with context.database.connect() as conn:
            await MomentRepository(conn).delete(one.id)

    async with _ready(own_database_url, tmp_path, ScriptedFinder(meanwhile=delete)) as context:
        one = (await _list(context))[0]
        result = await WORK.work(context)
        assert await _families(context) == {"Two": ["Two"], "Three": ["Three"]}
    assert (result["failed"], result["kept"]) == (0, 1)
    assert result["reason"] == "The moment was deleted (1 of 3 moments)"


async def test_a_video_that_is_deleted_meanwhile_ends_the_stage_at_once(own_database_url: str, tmp_path: Path) -> None:
    async def delete() -> None:
        async with context.database.connect() as conn:
            await VideoRepository(conn).delete(context.run.video_id)

    finder = ScriptedFinder(meanwhile=delete)
    async with _ready(own_database_url, tmp_path, finder, refinement_parallel_workers=1) as context:
        with pytest.raises(StageFailed, match=r"^The video was deleted$"):
            await WORK.work(context)
    assert len(finder.refined) == 1


async def test_a_worker_that_lost_its_run_writes_nothing_and_asks_no_more(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder()
    async with _ready(own_database_url, tmp_path, finder, refinement_parallel_workers=1) as context:
        finder.meanwhile = lambda: take_over(context)
        with pytest.raises(RunLost):
            await WORK.work(context)
        assert await _families(context) == {"One": [], "Two": [], "Three": []}
    assert len(finder.refined) == 1


async def test_files_of_clips_of_what_is_replaced_go(own_database_url: str, tmp_path: Path) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(), moments=["One"]) as context:
        one = (await _list(context))[0]
        async with context.database.connect() as conn:
            await _make_before(conn, "Before", one)
        await _put_clip(context, "Before")
        kept = await _put_clip(context, "One")
        await WORK.work(context)
        assert [file.url for file in await context.storage.list(clip_folder(context.run.video))] == [kept]
