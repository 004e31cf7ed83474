"""The refinement of one moment: what the model is shown, other workers, and deletions meanwhile."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from app.ai.protocols import RefineRequest, RefineResult
from app.core.errors import RunLost, StageFailed
from app.models.stages import RunType
from app.pipeline import moment_refiner
from app.pipeline.context import RunContext
from app.pipeline.stages import refinement
from app.repositories import MomentRepository, VideoRepository
from app.storage import clip_folder_key
from tests.factories import make_clip, make_transcript
from tests.pipeline.contexts import make_context, take_over
from tests.pipeline.refinements import (
    SPANS,
    failing,
    list_families,
    list_moments,
    make_before,
    make_found,
    ready,
)
from tests.pipeline.scripted_models import ScriptedFinder, ScriptedModels, refined, talk


async def _put_clip(context: RunContext, title: str, content: bytes = b"a video", **values: Any) -> str:
    source = context.folder / "clip.mp4"
    await asyncio.to_thread(source.write_bytes, content)
    key = f"{clip_folder_key(context.run.video)}/{title}.mp4"
    url = (await context.storage.put(key, source)).url
    moment = next(moment for moment in await list_moments(context) if moment.title == title)
    async with context.database.connect() as conn:
        await make_clip(conn, moment, **({"cloud_url": url, "start_time": 40.0, "end_time": 125.5} | values))
    return url


async def test_a_model_that_sees_is_shown_the_clip_and_what_is_said_in_it(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder(supports_video=True)
    async with ready(own_database_url, tmp_path, finder, moments=["One", "Two"]) as context:
        await _put_clip(context, "One")
        result = await refinement.run_stage(context)
        configs = {moment.generation_config_id for moment in await list_moments(context) if moment.is_refined}
    one, two = sorted(finder.refined, key=lambda request: request.moment.start)
    assert one.clip is not None
    assert one.clip.url == "data:video/mp4;base64," + base64.b64encode(b"a video").decode()
    assert (one.window_start, one.window_end) == (40.0, 125.5)
    assert (one.words[0].word, one.words[-1].word) == ("word40", "word124")
    assert two.clip is None
    assert (result["successful"], result["video_included"]) == (2, 1)
    assert len(configs) == 2


async def test_a_clip_in_a_bucket_is_shown_by_its_link(own_database_url: str, tmp_path: Path, bucket: str) -> None:
    finder = ScriptedFinder(supports_video=True)
    settings = {"storage_url": f"gs://{bucket}/media"}
    async with ready(own_database_url, tmp_path, finder, moments=["One"], settings=settings) as context:
        await _put_clip(context, "One")
        await refinement.run_stage(context)
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
    async with ready(own_database_url, tmp_path, finder, moments=["One"], video=video, settings=settings) as context:
        await _put_clip(context, "One", bytes(20 * 1024**2 + 1))
        moment = (await list_moments(context))[0]
        result = await refinement.run_stage(context)
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
    async with ready(own_database_url, tmp_path, finder) as context:
        await context.storage.delete(await _put_clip(context, "One"))
        await _put_clip(context, "Two", start_time=121.0, end_time=200.0)
        await _put_clip(context, "Three", start_time=150.0, end_time=219.0)
        result = await refinement.run_stage(context)
    assert [request.clip for request in finder.refined] == [None, None, None]
    assert (result["successful"], result["video_included"]) == (3, 0)


@pytest.mark.parametrize(("supports", "wanted"), [(False, True), (True, False)])
async def test_no_clip_is_shown_where_none_is_wanted_or_seen(
    own_database_url: str, tmp_path: Path, supports: bool, wanted: bool
) -> None:
    finder = ScriptedFinder(supports_video=supports)
    async with ready(own_database_url, tmp_path, finder, moments=["One"], include_video_refinement=wanted) as context:
        await _put_clip(context, "One")
        await refinement.run_stage(context)
    assert finder.refined[0].clip is None


async def test_where_nothing_is_said_the_one_moment_cannot_be_refined(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder()
    kind: dict[str, Any] = {"run_type": RunType.REFINEMENT, "subject": "f" * 16}
    async with make_context(own_database_url, tmp_path, models=ScriptedModels(finder=finder), **kind) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, word_timestamps=[], segment_timestamps=[])
            await make_found(conn, context.run.video_id, "One", identifier="f" * 16)
        with pytest.raises(StageFailed, match=r"^Nothing is said around the moment$"):
            await refinement.run_stage(context)
    assert finder.refined == []


@pytest.mark.parametrize(
    ("seconds", "moments", "kept", "reason"),
    [
        (0, ["One"], 1, "Nothing is said around the moment"),
        (0, list(SPANS), 3, "Nothing is said around the moment (3 of 3 moments)"),
        (120, list(SPANS), 1, "Nothing is said around the moment (1 of 3 moments)"),
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
                await make_found(conn, context.run.video_id, title, generation_config_id=None)
        result = await refinement.run_stage(context)
        made = [moment.title for moment in await list_moments(context) if moment.is_refined]
    assert made == moments[: len(moments) - kept]
    assert (result["failed"], result["successful"], result["kept"]) == (0, len(made), kept)
    assert result["reason"] == reason
    assert context.progress == {
        "total": len(moments),
        "processed": len(moments),
        "successful": len(made),
        "failed": 0,
    }


async def test_files_of_clips_of_what_is_replaced_go(own_database_url: str, tmp_path: Path) -> None:
    async with ready(own_database_url, tmp_path, ScriptedFinder(), moments=["One"]) as context:
        one = (await list_moments(context))[0]
        async with context.database.connect() as conn:
            await make_before(conn, "Before", one)
        await _put_clip(context, "Before")
        kept = await _put_clip(context, "One")
        await refinement.run_stage(context)
        assert [file.url for file in await context.storage.list_files(clip_folder_key(context.run.video))] == [kept]


async def test_a_worker_that_takes_over_keeps_the_order_and_does_not_ask_about_exact_times_again(
    own_database_url: str, tmp_path: Path
) -> None:
    def answer(request: RefineRequest) -> RefineResult | Exception:
        if request.moment.title == "Two":
            return RunLost()
        return refined(request.moment.start + (request.moment.title != "One"), request.moment.end)

    async def wait() -> None:
        is_two = finder.refined[-1].moment.title == "Two"
        while is_two and not await are_others_done():  # noqa: ASYNC110  no event is set
            await asyncio.sleep(0.01)

    async def are_others_done() -> bool:
        async with context.database.connect() as conn:
            exact = await moment_refiner.list_unchanged_moment_ids(conn, context)
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
