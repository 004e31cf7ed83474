"""Moments that a run has replaced come back where it does not complete."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.ai.protocols import PromptText, RefineRequest, RefineResult
from app.core.errors import StageFailed
from app.database import Connection
from app.models.runs import RunOutcome, RunStatus, StageRecord, StageStatus
from app.models.stages import RunType, Stage
from app.pipeline.context import RunContext
from app.pipeline.stages import generation
from app.pipeline.stages import refinement as refinement_stage
from app.repositories import MomentRepository, VideoRepository
from app.repositories.contents import ReplacedMomentsRepository
from app.repositories.ended_runs import EndedRunRepository
from app.repositories.runs import RunRepository
from app.repositories.stage_queue import StageQueueRepository
from app.repositories.stages import ClaimedRunRepository, ModelAnswerRepository
from app.services.deletion import DeletionOptions, delete_video_rows
from app.services.queue import cancel_active_runs
from app.services.runs import _list_finished_stages, make_reported_stage_records
from tests.factories import make_clip, make_generation_config, make_moment, make_thumbnail, make_transcript
from tests.pipeline.contexts import make_context, take_over
from tests.pipeline.scripted_models import ScriptedFinder, ScriptedModels, found, refined, talk
from tests.retries import remove_waits
from tests.runs import set_record

TABLES = ("moments", "clips", "thumbnails")
End = Callable[[Connection, RunContext], Awaitable[object]]


async def end_as_cancelled(conn: Connection, context: RunContext) -> None:
    await ClaimedRunRepository(conn).finish_run(context.run, RunOutcome(RunStatus.CANCELLED))


async def end_as_failed(conn: Connection, context: RunContext) -> None:
    await ClaimedRunRepository(conn).finish_run(context.run, RunOutcome(RunStatus.FAILED, "clips", "No", moments=2))


async def cancel_without_a_worker(conn: Connection, context: RunContext) -> None:
    await conn.execute("UPDATE pipeline.runs SET heartbeat_at = heartbeat_at - interval '1 hour'")
    assert await cancel_active_runs(conn, context.run.video) == {context.run.identifier: True}


async def release_cancelled(conn: Connection, context: RunContext) -> None:
    await cancel_active_runs(conn, context.run.video)
    await ClaimedRunRepository(conn).release_stage(context.run)


async def end_after_a_worker_died(conn: Connection, context: RunContext) -> None:
    second = await take_over(context)
    assert (await generation.run_stage(second))["moments"] == 2
    await end_as_cancelled(conn, second)


async def read_rows(context: RunContext) -> list[list[tuple[Any, ...]]]:
    async with context.database.connect() as conn:
        return [
            await (await conn.execute(f"SELECT * FROM {table} ORDER BY id".encode())).fetchall() for table in TABLES
        ]


async def make_before(conn: Connection, video_id: int) -> None:
    """What a run before has found, refined and cut, beside a moment of a user."""
    config = await make_generation_config(conn)
    values: dict[str, Any] = {"video_id": video_id, "generation_config_id": config.id, "generation_model": "old/finder"}
    one = await make_moment(conn, title="Old", start_time=10.123456789, end_time=20.1, score=7, **values)
    clip = await make_clip(conn, one, padding_left=1.5, video_codec="h264")
    await make_thumbnail(conn, clip_id=clip.id)
    refined = await make_moment(
        conn, title="Old", start_time=11.0, end_time=19.0, is_refined=True, parent_id=one.id, **values
    )
    await make_moment(conn, title="Older", is_refined=True, parent_id=refined.id, **values)
    await make_moment(conn, title="Mine", video_id=video_id, start_time=200.0, end_time=210.0)


@pytest.mark.parametrize("run_type", [RunType.FULL, RunType.MOMENTS])
@pytest.mark.parametrize(
    "end", [end_as_cancelled, end_as_failed, cancel_without_a_worker, release_cancelled, end_after_a_worker_died]
)
async def test_what_a_run_has_replaced_comes_back_where_it_does_not_complete(
    own_database_url: str, tmp_path: Path, end: End, run_type: RunType
) -> None:
    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"), (80.0, 150.0, "Two"))))
    async with (
        make_context(own_database_url, tmp_path, models=models, run_type=run_type) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        before = await read_rows(context)
        record = StageRecord(StageStatus.COMPLETED, 1.0, 2.0, result=await generation.run_stage(context))
        await set_record(conn, context.run, Stage.GENERATION, record)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        assert [moment.title for moment in moments] == ["Mine", "One", "Two"]
        better = await make_moment(conn, video_id=context.run.video_id, is_refined=True, parent_id=moments[1].id)
        await make_thumbnail(conn, clip_id=(await make_clip(conn, better)).id)
        async with conn.transaction():
            await end(conn, context)
        assert await read_rows(context) == before
        assert await (await conn.execute("SELECT count(*) FROM pipeline.replaced")).fetchone() == (0,)
        (run,) = await RunRepository(conn).list_run_summaries(context.run.video, 1)
        ended = await EndedRunRepository(conn).find_ended_run(run_identifier=context.run.identifier)
    assert (run.total_moments_generated, run.total_clips_created) == (0, 0)
    shown = make_reported_stage_records(run)[Stage.GENERATION]
    assert shown.status is StageStatus.SKIPPED
    assert shown.skip_reason == "The moments from before were kept, because the run did not complete"
    assert ended is not None
    assert Stage.GENERATION not in _list_finished_stages(ended)


async def retry(
    url: str, context: RunContext, models: ScriptedModels, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What generation and refinement come to in a run that tries the ended one again."""
    video = {"identifier": context.run.video}
    async with make_context(url, folder, models=models, video=video) as again:
        async with again.database.connect() as conn:
            await ModelAnswerRepository(conn).copy_answers_to_retry(context.run.identifier, again.run.identifier)
        generated = dict(await generation.run_stage(again))
        refinement = dict(await refinement_stage.run_stage(again))
        async with again.database.connect() as conn, conn.transaction():
            await ClaimedRunRepository(conn).finish_run(again.run, RunOutcome(RunStatus.COMPLETED))
    return generated, refinement


@pytest.mark.parametrize("end", [end_as_failed, cancel_without_a_worker])
async def test_a_retry_pays_for_nothing_that_a_model_has_answered(
    own_database_url: str, tmp_path: Path, end: End
) -> None:
    def answer(request: RefineRequest) -> RefineResult | Exception:
        if request.moment.title == "Two":
            return StageFailed("Two is too hard")
        return refined(request.moment.start + 1.1, request.moment.end)

    finder = ScriptedFinder(found((10.1, 70.2, "One"), (80.0, 150.0, "Two")), refine_answer=answer)
    models = ScriptedModels(finder=finder)
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        await generation.run_stage(context)
        await refinement_stage.run_stage(context)
        async with conn.transaction():
            await end(conn, context)
        finder.answer, finder.refine_answer = found((30.0, 90.0, "Other")), lambda request: refined(81.0, 149.0)
        finder.asked.clear()
        finder.refined.clear()
        generated, refinement = await retry(own_database_url, context, models, tmp_path)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        kept = await (await conn.execute("SELECT DISTINCT run_id FROM pipeline.answers")).fetchall()
    assert (len(finder.asked), [request.moment.title for request in finder.refined]) == (0, ["Two"])
    assert [(each.title, each.start_time, each.end_time) for each in moments if each.title != "Mine"] == [
        ("One", 10.1, 70.2),
        ("Two", 80.0, 150.0),
        ("One", 11.2, 70.2),
        ("Two", 81.0, 149.0),
    ]
    assert {each.generation_model for each in moments if each.title == "One"} == {
        "scripted/finder-2b",
        "scripted/refiner-2b",
    }
    assert (generated["moments"], generated["usage"]["calls"]) == (2, 0)
    assert (refinement["successful"], refinement["usage"]["calls"]) == (3, 1)
    assert kept == [(context.run.id,)]


async def test_a_retry_of_a_run_of_which_a_part_failed_refines_that_part(own_database_url: str, tmp_path: Path) -> None:
    def answer(request: RefineRequest) -> RefineResult | Exception:
        if request.moment.title == "Two":
            return StageFailed("Two is too hard")
        return refined(request.moment.start + (request.moment.title == "One"), request.moment.end)

    answers = found((10.0, 70.0, "One"), (80.0, 150.0, "Two"), (160.0, 230.0, "Exact"))
    finder = ScriptedFinder(answers, refine_answer=answer)
    models = ScriptedModels(finder=finder)
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await generation.run_stage(context)
        await refinement_stage.run_stage(context)
        async with conn.transaction():
            await ClaimedRunRepository(conn).finish_run(context.run, RunOutcome(RunStatus.PARTIAL))
        before = await MomentRepository(conn).list_by_video(context.run.video_id)
        finder.refined.clear()
        finder.refine_answer = lambda request: refined(81.0, 149.0)
        video = {"identifier": context.run.video}
        async with make_context(own_database_url, tmp_path, models=models, video=video) as again:
            await ModelAnswerRepository(conn).copy_answers_to_retry(context.run.identifier, again.run.identifier)
            result = await refinement_stage.run_stage(again)
        after = await MomentRepository(conn).list_by_video(context.run.video_id)
    assert [request.moment.title for request in finder.refined] == ["Two"]
    assert after[:-1] == before
    assert (after[-1].title, after[-1].start_time) == ("Two", 81.0)
    assert (result["successful"], result["unchanged"]) == (3, 1)


@pytest.mark.parametrize("what", ["transcript", "prompt"])
async def test_a_retry_asks_anew_where_the_question_is_another_one(
    own_database_url: str, tmp_path: Path, what: str
) -> None:
    finder = ScriptedFinder(found((10.0, 70.0, "One")))
    models = ScriptedModels(finder=finder)
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await generation.run_stage(context)
        async with conn.transaction():
            await end_as_failed(conn, context)
        if what == "transcript":
            await conn.execute("DELETE FROM transcripts")
            await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        else:
            finder.make_generation_prompt = lambda prompt: PromptText("Find others", "{transcript}")  # type: ignore[method-assign]
        await retry(own_database_url, context, models, tmp_path)
    assert len(finder.asked) == 2


async def test_what_cannot_come_back_does_not_keep_the_run_from_ending(own_database_url: str, tmp_path: Path) -> None:
    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"))))
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        old = (await MomentRepository(conn).list_by_video(context.run.video_id))[0]
        await generation.run_stage(context)
        await make_moment(conn, video_id=context.run.video_id, identifier=old.identifier, title="Imported")
        async with conn.transaction():
            await end_as_cancelled(conn, context)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
    assert sorted(moment.title for moment in moments) == ["Imported", "Mine", "Old", "Older"]
    assert {moment.parent_id for moment in moments if moment.title == "Old"} == {None}


async def test_a_first_run_that_is_cancelled_keeps_what_it_has_found(own_database_url: str, tmp_path: Path) -> None:
    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"))))
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await generation.run_stage(context)
        async with conn.transaction():
            await end_as_cancelled(conn, context)
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
    assert [moment.title for moment in moments] == ["One"]


async def test_moments_that_are_deleted_while_a_run_replaces_them_do_not_come_back(
    own_database_url: str, tmp_path: Path
) -> None:
    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"))))
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        await generation.run_stage(context)
        async with conn.transaction():
            await delete_video_rows(conn, context.run.video, DeletionOptions(force=True, skip_local_video=True))
        async with conn.transaction():
            await end_as_cancelled(conn, context)
        assert await MomentRepository(conn).list_by_video(context.run.video_id) == []


@pytest.mark.parametrize(("skips", "clips"), [({}, 0), ({"skip_local_clips": True}, 1), ({"skip_gcs_clips": True}, 0)])
async def test_clips_that_are_deleted_while_a_run_replaces_them_do_not_come_back(
    own_database_url: str, tmp_path: Path, skips: dict[str, bool], clips: int
) -> None:
    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"))))
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        await generation.run_stage(context)
        async with conn.transaction():
            await delete_video_rows(
                conn, context.run.video, DeletionOptions(force=True, skip_local_moments=True, **skips)
            )
        async with conn.transaction():
            await end_as_cancelled(conn, context)
        assert [len(rows) for rows in await read_rows(context)] == [4, clips, clips]


async def test_a_file_that_a_run_has_replaced_is_referred_to_until_the_run_ends(
    own_database_url: str, tmp_path: Path
) -> None:
    async with (
        make_context(own_database_url, tmp_path, video={"identifier": "talk"}) as context,
        context.database.connect() as conn,
    ):
        moment = await make_moment(conn, video_id=context.run.video_id)
        await make_clip(conn, moment, cloud_url="file:///media/old.mp4")
        await ReplacedMomentsRepository(conn).set_moments_aside(context.run.id, [moment.id], [])
        assert await VideoRepository(conn).is_file_referenced("talk", "file:///media/old.mp4")
        async with conn.transaction():
            await ClaimedRunRepository(conn).finish_run(context.run, RunOutcome(RunStatus.COMPLETED))
        assert not await VideoRepository(conn).is_file_referenced("talk", "file:///media/old.mp4")


async def test_moments_whose_commit_was_not_answered_are_replaced_once(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, lost = RunContext.claim_transaction, 0

    @asynccontextmanager
    async def commit_without_answer(context: RunContext) -> AsyncIterator[Connection]:
        nonlocal lost
        async with commit(context) as conn:
            yield conn
        lost += 1
        if lost % 2:
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    remove_waits(monkeypatch, "app.pipeline.failures._OUTAGE_POLICY", calls=3)
    monkeypatch.setattr(RunContext, "claim_transaction", commit_without_answer)
    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"), (80.0, 150.0, "Two"))))
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        before = await read_rows(context)
        assert (await generation.run_stage(context))["moments"] == 2
        assert lost == 6
        moments = await MomentRepository(conn).list_by_video(context.run.video_id)
        assert [moment.title for moment in moments] == ["Mine", "One", "Two"]
        async with conn.transaction():
            await end_as_cancelled(conn, context)
        assert await read_rows(context) == before


async def test_a_run_that_no_worker_can_read_ends_with_all_it_has_replaced_or_not_at_all(
    own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose_connection(repository: ReplacedMomentsRepository, run_id: int) -> None:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"))))
    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        before = await read_rows(context)
        await generation.run_stage(context)
        replaced = await read_rows(context)
        await conn.execute("UPDATE pipeline.runs SET request = '[]', attempt = 3")
        with monkeypatch.context() as patch:
            patch.setattr(ReplacedMomentsRepository, "_insert_set_aside_rows", lose_connection)
            with pytest.raises(psycopg.OperationalError):
                await StageQueueRepository(conn).claim_stage(context.run.identifier, context.run.stage, "other", -1)
        assert await read_rows(context) == replaced
        assert (
            await StageQueueRepository(conn).claim_stage(context.run.identifier, context.run.stage, "other", -1) is None
        )
        assert await read_rows(context) == before


async def test_a_run_that_is_released_and_the_deletion_of_its_video_do_not_wait_for_each_other(
    own_database_url: str, tmp_path: Path
) -> None:
    models = ScriptedModels(finder=ScriptedFinder(found((10.0, 70.0, "One"))))

    async def release() -> None:
        async with context.database.connect() as other, other.transaction():
            await ClaimedRunRepository(other).release_stage(context.run)

    async with (
        make_context(own_database_url, tmp_path, models=models) as context,
        context.database.connect() as conn,
    ):
        await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        await make_before(conn, context.run.video_id)
        await generation.run_stage(context)
        await cancel_active_runs(conn, context.run.video)
        async with conn.transaction():
            await VideoRepository(conn).lock_video_for_deletion(context.run.video)
            releasing = asyncio.create_task(release())
            await until_somebody_waits(context)
            await cancel_active_runs(conn, context.run.video)
            await VideoRepository(conn).delete(context.run.video_id)
        await releasing


async def until_somebody_waits(context: RunContext) -> None:
    statement = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(60), context.database.connect() as conn:
        while True:
            if await (await conn.execute(statement)).fetchone() is not None:
                return
            await asyncio.sleep(0.02)
